"""Find a raster's own table, and report GDAL's messages about it.

GDAL may return an incomplete table: it drops rows, clamps integers and continues after a failed
read, and reports this only in a message. This module turns such messages into errors with GDAL's
words, and other messages into Python warnings.

GDAL's table is in the raster's file or its ``.aux.xml``. If a band has no table there, the
raster's ``.vat.dbf`` is its table. GDAL 3.11 and later follow the same rule; we follow it with
every version.
"""

import itertools
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gdalbridge.errors import GdalLossError, GdalWarning, LossWarning, RasterNotFoundError
from gdalbridge.gdalio.aux_xml import has_table
from gdalbridge.gdalio.compat import (
    READS_DBF,
    Message,
    collected,
    exceptions,
    gdal,
    own_rat,
    silence,
)
from gdalbridge.gdalio.datasets import (
    file_of,
    messages_of,
    open_dataset,
    read_file,
    siblings_visible,
)
from gdalbridge.gdalio.read_options import DEFAULTS, ReadOptions
from gdalbridge.gdalio.vat_dbf import DbfTable
from gdalbridge.gdalio.xml_numbers import altered_numbers
from ratzarr.errors import Advice

__all__ = ["DBF_SUFFIX", "dbf_beside", "open_own_table", "report_messages"]

DBF_SUFFIX = ".vat.dbf"
WITHOUT_DBF = frozenset({"VRT", "DERIVED", "GTI"})
"""GDAL formats that ignore tables in files beside the raster."""
LISTED = 1000
"""Largest number of files in a directory searched for a name in other case."""
REMEMBERED = 64
"""Number of rasters whose messages, or altered numbers, are kept, by the state of their files."""
SHOWN = 3
"""Number of messages that an error quotes."""
ABOUT_TABLE = re.compile(
    r"\biRow\b|\biField\b|\.vat\b|\bRAT\b|attribute table|Integer overflow", re.I
)
"""Matches messages about a table among all messages about a raster."""
LOSS = re.compile(
    r"overflow|out of range|clamp|truncat|incompletely|fread|can ?not|could not|fail", re.I
)


def open_own_table(
    dataset: Any, band: Any, name: str, options: ReadOptions = DEFAULTS
) -> Any | DbfTable | None:
    """Return a band's own table: a GDAL table, a :class:`DbfTable`, or None.

    Parameters
    ----------
    dataset, band
        The GDAL objects.
    name : str
        The raster's name, for messages.
    options : ReadOptions

    Raises
    ------
    GdalLossError
        If values were lost or altered, unless ``options.lossy``.

    Warns
    -----
    GdalWarning
        For GDAL's other messages.
    """
    path = dbf_beside(dataset)
    heard = messages_of(dataset)
    if path is not None and not _has_table_without(dataset, band.GetBand(), path):
        table = DbfTable(path, options)
        if heard is not None or not _was_given_another(dataset, band, table):
            return table
    rat, found = _table_and_messages(dataset, band)
    if heard is None:
        # The dataset was opened elsewhere, and GDAL may have reported everything then.
        again = _heard_again(dataset, band.GetBand())
        # A table that the caller has set on the band is not in the file.
        found = [*(again.messages if again.shape == _shape(rat) else ()), *found]
    else:
        # Another band's table may be requested later, when GDAL no longer reports its problems.
        heard.extend(found)
        found = heard
    if rat is not None:
        found = [*found, *_altered_in_xml(dataset, band.GetBand(), rat)]
    report_messages(found, name, options)
    if rat is None:
        _check_aux_xml(dataset, None if heard is None else band.GetBand(), name, options)
    return rat


@dataclass(frozen=True, slots=True)
class _Heard:
    """GDAL's messages about a raster, with the table that they concern."""

    messages: tuple[Message, ...] = ()
    shape: tuple[Any, ...] | None = None


def _shape(rat: Any) -> tuple[Any, ...] | None:
    if rat is None:
        return None
    return rat.GetRowCount(), *(rat.GetNameOfCol(i) for i in range(rat.GetColumnCount()))


def _table_and_messages(dataset: Any, band: Any) -> tuple[Any, list[Message]]:
    """Return a band's table from GDAL, and the messages that GDAL reports while it reads it."""
    with (
        siblings_visible(dataset.GetDescription()),
        exceptions(False),
        collected(of_table=True) as found,
    ):
        return own_rat(band), found


def dbf_beside(dataset: Any) -> str | None:
    """Return the ``.vat.dbf`` beside a raster, if it could be its table."""
    name = file_of(dataset)
    if name is None or dataset.GetDriver().ShortName in WITHOUT_DBF:
        return None
    with siblings_visible(name), silence():
        exact = f"{name}{DBF_SUFFIX}"
        if gdal.VSIStatL(exact, gdal.VSI_STAT_EXISTS_FLAG) is not None:
            return exact
        if name.startswith("/vsi"):
            return None
    # GDAL searches a directory listing, ignoring case.
    folder, wanted = Path(name).parent, f"{Path(name).name}{DBF_SUFFIX}".lower()
    try:
        with os.scandir(folder) as entries:
            # GDAL does not search longer listings either.
            some = itertools.islice(entries, LISTED)
            return next((one.path for one in some if one.name.lower() == wanted), None)
    except OSError:
        return None


def _has_table_without(dataset: Any, number: int, dbf: str) -> bool:
    """Return True if a band has a table outside its ``.vat.dbf``."""
    if not READS_DBF:
        with siblings_visible(dataset.GetDescription()), exceptions(False), silence():
            return own_rat(dataset.GetRasterBand(number)) is not None
    name = dataset.GetDescription()
    with exceptions(False), silence():
        others = [one for one in _siblings(name) if one.lower() != Path(dbf).name.lower()]
        alone = gdal.OpenEx(name, gdal.OF_RASTER, sibling_files=others)
        return alone is None or own_rat(alone.GetRasterBand(number)) is not None


def _was_given_another(dataset: Any, band: Any, table: DbfTable) -> bool:
    """Return True if the caller has set a table on an open dataset that is not in a file yet."""
    with siblings_visible(dataset.GetDescription()), exceptions(False), silence():
        rat = own_rat(band)
        if rat is None:
            return False
        names = [str(rat.GetNameOfCol(index)) for index in range(rat.GetColumnCount())]
    fields = [table.column(index).name for index in range(len(table))]
    if len(names) != len(fields):
        return True
    # Non-ASCII names may have been decoded differently.
    pairs = [(a, b) for a, b in zip(names, fields, strict=True) if a.isascii() and b.isascii()]
    return any(a != b for a, b in pairs)


def _siblings(name: str) -> Sequence[str]:
    folder, _, base = name.replace("\\", "/").rpartition("/")
    listed = gdal.ReadDir(folder or ("/" if name.startswith("/") else ".")) or []
    stem = base.rpartition(".")[0] or base
    return [one for one in listed if one.startswith(stem)] or [base]


def _heard_again(dataset: Any, number: int) -> _Heard:
    """Return GDAL's messages when a raster and a band's table are opened again."""
    name = file_of(dataset)
    if name is None:
        return _Heard()
    try:
        return _heard_from(name, number, _stamp(name), _stamp(f"{name}.aux.xml"))
    except RasterNotFoundError:
        # The raster was removed, or its name cannot be opened. Only answers are cached.
        return _Heard()


@lru_cache(REMEMBERED)
def _heard_from(name: str, number: int, *state: tuple[int, int]) -> _Heard:
    """Open a raster again; ``state`` is that of its files, for the cache."""
    again = open_dataset(name)
    if number > again.RasterCount:
        return _Heard()
    rat, said = _table_and_messages(again, again.GetRasterBand(number))
    return _Heard((*(messages_of(again) or ()), *said), _shape(rat))


def _altered_in_xml(dataset: Any, number: int, rat: Any) -> tuple[Message, ...]:
    """Return the numbers of a table in XML that GDAL silently altered, once for each file."""
    name = file_of(dataset)
    if name is None or rat.ChangesAreWrittenToFile():
        return ()
    path = name if dataset.GetDriver().ShortName == "VRT" else f"{name}.aux.xml"
    stamp = _stamp(path)
    if stamp[0] < 0:
        return ()
    columns = tuple(
        (str(rat.GetNameOfCol(index)), int(rat.GetTypeOfCol(index)))
        for index in range(rat.GetColumnCount())
    )
    return _altered_at(path, number, columns, stamp)


@lru_cache(REMEMBERED)
def _altered_at(
    path: str, number: int, columns: tuple[tuple[str, int], ...], stamp: tuple[int, int]
) -> tuple[Message, ...]:
    words = altered_numbers(path, number, columns)
    return tuple(Message(gdal.CE_Failure, text, True) for text in words)


def _stamp(name: str) -> tuple[int, int]:
    if not name.startswith("/vsi"):
        try:
            found = Path(name).stat()
        except (OSError, ValueError):
            return (-1, 0)
        return (found.st_size, found.st_mtime_ns)
    with siblings_visible(name), silence():
        state = gdal.VSIStatL(name)
    return (-1, 0) if state is None else (state.size, state.mtime)


def _check_aux_xml(dataset: Any, number: int | None, name: str, options: ReadOptions) -> None:
    """Reject a raster whose ``.aux.xml`` GDAL silently ignores: a damaged one, or on a busy server.

    ``number`` is the band, if the raster was opened here, so that GDAL was meant to read the file.
    """
    if file_of(dataset) is None:
        return
    path = f"{dataset.GetDescription()}.aux.xml"
    with siblings_visible(path):
        data = read_file(path)
    if data is None:
        return
    if b"GDALRasterAttributeTable" not in data and b"</PAMDataset>" in data:
        return
    with exceptions(False), collected() as found:
        # Only well-formedness matters here, not the encoding.
        parsed = gdal.ParseXMLString(data.replace(b"\0", b" ").decode("latin-1"))
    if parsed is None:
        empty = "it is not XML" if data else "it is empty, or the server does not deliver it"
        words = f"{path} is damaged: {found[0].text if found else empty}"
    elif path.startswith("/vsi") and number is not None and has_table(parsed, number):
        words = f"it has not read {path}, which has one"
    else:
        return
    report_messages([Message(gdal.CE_Failure, words, True)], name, options)


def report_messages(messages: Iterable[Message], name: str, options: ReadOptions) -> None:
    """Raise or warn for GDAL's messages about a raster and its table.

    Parameters
    ----------
    messages : iterable of Message
    name : str
        The raster's name.
    options : ReadOptions
        With ``lossy``, warn about lost values instead of raising an error.

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
        is_of_table = message.of_table or ABOUT_TABLE.search(message.text) is not None
        if is_of_table and (message.level >= gdal.CE_Failure or LOSS.search(message.text)):
            losses.append(message.text.rstrip("."))
        else:
            warnings.warn(f"{name}: {message.text}", GdalWarning, stacklevel=1)
    if not losses or options.compared:
        return
    more = f"; and {len(losses) - SHOWN} more" if len(losses) > SHOWN else ""
    words = f"{'; '.join(losses[:SHOWN])}{more}"
    if not options.lossy:
        raise GdalLossError(
            Advice(
                f"{name}: GDAL lost or altered values of the attribute table: {words}.",
                "Use lossy=True to read what is left.",
            )
        )
    warnings.warn(f"{name}: lost or altered values: {words}", LossWarning, stacklevel=1)
