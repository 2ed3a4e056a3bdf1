"""Warnings and errors that GDAL reports while opening a raster and reading its table.

GDAL may return an incomplete table: it drops rows, clamps integers and continues after a failed
read, and reports this only in a message. This module turns such messages into errors with GDAL's
words, and other messages into Python warnings.
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
"""Number of messages that an error quotes."""
ABOUT_TABLE = re.compile(
    r"\biRow\b|\biField\b|\.vat\b|\bRAT\b|attribute table|Integer overflow", re.I
)
"""Matches messages about a table among all messages about a raster."""
LOSS = re.compile(
    r"overflow|out of range|clamp|truncat|incompletely|fread|can ?not|could not|fail", re.I
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message from GDAL."""

    level: int
    """``gdal.CE_Warning``, ``gdal.CE_Failure``, ..."""
    text: str
    of_table: bool = False
    """True if GDAL reported it while reading a table."""

    @property
    def is_loss(self) -> bool:
        """True if values of a table were lost or altered."""
        if not self.of_table and not ABOUT_TABLE.search(self.text):
            return False
        return self.level >= gdal.CE_Failure or LOSS.search(self.text) is not None


@contextmanager
def collected(*, of_table: bool = False) -> Iterator[list[Message]]:
    """Collect GDAL's messages in this thread within the block, and keep them off stderr.

    Parameters
    ----------
    of_table : bool
        True if all messages concern a table.
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
    """Raise or warn for GDAL's messages about a raster and its table.

    Parameters
    ----------
    messages : iterable of Message
    name : str
        The raster's name.
    lossy : bool
        Warn about lost values instead of raising an error.

    Raises
    ------
    GdalLossError
        If values were lost or altered, with GDAL's words.

    Warns
    -----
    GdalWarning
        For any other message.
    LossWarning
        For lost values, with ``lossy``.
    """
    losses = []
    # Always warn from this line, so that Python shows each warning once.
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
