"""Warnings and errors that GDAL reports while it opens a raster and reads its table.

GDAL hands out a table also where it could not keep all of it: it drops rows, clamps
integers and goes on after a failed read, and says so in a message only. Here such a
message becomes an error with GDAL's words. Any other message becomes a Python warning.
"""

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gdalbridge.errors import GdalLossError, GdalWarning, LossWarning
from gdalbridge.gdalio.compat import gdal
from ratzarr.errors import Advice

__all__ = ["Message", "collected", "report"]

SHOWN = 3
"""Messages that one error quotes."""
ABOUT_TABLE = re.compile(
    r"\biRow\b|\biField\b|\.vat\b|\bRAT\b|attribute table|Integer overflow", re.I
)
"""Messages about a table, among all those that opening a raster may bring."""
LOSS = re.compile(
    r"overflow|out of range|clamp|truncat|incompletely|fread|can ?not|could not|fail", re.I
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of GDAL's."""

    level: int
    """``gdal.CE_Warning``, ``gdal.CE_Failure``, ..."""
    text: str
    of_table: bool = False
    """Whether GDAL reported it while it read a table."""

    @property
    def is_loss(self) -> bool:
        """Whether values of a table were lost or altered."""
        if not self.of_table and not ABOUT_TABLE.search(self.text):
            return False
        return self.level >= gdal.CE_Failure or LOSS.search(self.text) is not None


@contextmanager
def collected(*, of_table: bool = False) -> Iterator[list[Message]]:
    """Collect what GDAL reports in this thread, within the block, and keep it off stderr.

    Parameters
    ----------
    of_table : bool
        Whether all of it concerns a table.
    """
    found: list[Message] = []

    def handle(level: int, number: int, text: str) -> None:
        if level == gdal.CE_Debug:
            sys.stderr.write(f"{text}\n")
        elif level != gdal.CE_None:
            found.append(Message(level, text.strip(), of_table))

    gdal.PushErrorHandler(handle)
    try:
        yield found
    finally:
        gdal.PopErrorHandler()


def report(messages: Iterable[Message], name: str, *, lossy: bool) -> None:
    """Pass on what GDAL reported of a raster and its table.

    Parameters
    ----------
    messages : iterable of Message
    name : str
        The raster.
    lossy : bool
        Warn of lost values; by default they are an error.

    Raises
    ------
    GdalLossError
        Where values were lost or altered, with GDAL's words.

    Warns
    -----
    GdalWarning
        For any other message.
    LossWarning
        For lost values, with ``lossy``.
    """
    losses = []
    # From one place in the code, so that Python shows each once, whoever reads the table again.
    for message in dict.fromkeys(messages):
        if message.is_loss:
            losses.append(message.text.rstrip("."))
        else:
            warnings.warn(f"{name}: {message.text}", GdalWarning, stacklevel=1)
    if not losses:
        return
    more = f"; and {len(losses) - SHOWN} more" if len(losses) > SHOWN else ""
    words = f"{'; '.join(losses[:SHOWN])}{more}"
    if not lossy:
        raise GdalLossError(
            Advice(
                f"{name}: GDAL lost or altered values of the attribute table: {words}.",
                "Use lossy=True to read what is left.",
            )
        )
    warnings.warn(f"{name}: lost or altered values: {words}", LossWarning, stacklevel=1)
