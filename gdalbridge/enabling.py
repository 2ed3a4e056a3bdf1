"""Code that only knows GDAL gets the attached table.

``Band.GetDefaultRAT`` of GDAL's Python bindings is replaced, for the whole process, by a
function that hands out the attached table, and ``SetDefaultRAT`` by one that leaves the
raster alone. Nothing else is changed, and :func:`disable` puts back what was there.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from osgeo import gdal_array

from ._gdal import exceptions, gdal, own_rat, set_own_rat, silence
from .attach import AttachedRAT, Options, attach_band, has_place
from .attachedcolumns import OwnColumn, pieces, plain_of
from .errors import BridgeError, ConversionError, NotWrittenError
from .gdalopen import siblings_visible
from .nativecolumns import NativeColumn, native_columns
from .shownvalues import from_plain

__all__ = ["Enabled", "disable", "enable"]

_lock = threading.RLock()
_stack: list["Enabled"] = []
_originals: dict[tuple[Any, str], Any] = {}
"""What was replaced; empty where nothing is."""


class Enabled:
    """That attached tables are handed out; as a context manager until its end."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _leave(self)


def enable(
    *, update: bool = True, override: bool = False, prefer: str = "sidecar"
) -> Enabled:
    """Have ``Band.GetDefaultRAT()`` hand out attached tables, in all code of this process.

    Can be called again, also with other arguments: the last call counts until it is undone
    by :func:`disable`, or at the end of its ``with`` block.

    Parameters
    ----------
    update : bool
        Let what a program changes in a table go to a sidecar: also ``SetDefaultRAT`` of a
        table that it has made. False: tables are for reading, and ``SetDefaultRAT`` of a
        table that is not an attached one is GDAL's own.
    override, prefer
        See :func:`gdalbridge.attach`.

    Returns
    -------
    context manager

    Examples
    --------
    >>> import gdalbridge
    >>> with gdalbridge.enable():
    ...     pass  # rat = band.GetDefaultRAT() is an AttachedRAT
    """
    if prefer not in ("sidecar", "raster"):
        raise BridgeError(f'prefer is "sidecar" or "raster": got {prefer!r}')
    enabled = Enabled(Options(prefer=prefer, update=update, override=override))
    with _lock:
        if not _stack:
            for (owner, name), ours in _REPLACED.items():
                _originals[owner, name] = vars(owner)[name]
                setattr(owner, name, ours)
        _stack.append(enabled)
    return enabled


def disable() -> None:
    """Undo the last :func:`enable` that was not undone; nothing where there is none.

    Tables that were handed out go on working.
    """
    with _lock:
        if _stack:
            _leave(_stack[-1])


def _leave(enabled: Enabled) -> None:
    with _lock:
        if enabled not in _stack:
            return
        _stack.remove(enabled)
        if not _stack:
            for (owner, name), original in _originals.items():
                setattr(owner, name, original)
            _originals.clear()


def _options() -> Options | None:
    with _lock:
        return _stack[-1].options if _stack else None


# ---- what is put in the place of GDAL's own


def _get_default_rat(band: Any) -> Any:
    options = _options()
    if options is None or not has_place(band):
        return own_rat(band)
    attached = attach_band(band, options)
    if attached.GetColumnCount() == 0 and not attached.has_sidecar:
        # Programs ask whether there is a table at all.
        with siblings_visible(band.GetDataset().GetDescription()):
            return own_rat(band)
    return attached


def _set_default_rat(band: Any, table: Any) -> Any:
    options = _options()
    attached = table if isinstance(table, AttachedRAT) else None
    if options is None or not has_place(band):
        return set_own_rat(band, table if attached is None else attached.Clone())
    if attached is not None and _is_of(attached, band):
        attached.flush()
        return gdal.CE_None
    if not options.update:
        return set_own_rat(band, table if attached is None else attached.Clone())
    if table is None:
        raise NotWrittenError(
            f"{band.GetDataset().GetDescription()}: its own table is not removed while changes "
            "go to sidecars (gdalbridge.enable)"
        )
    _write_all(band, table, options)
    return gdal.CE_None


def _is_of(attached: AttachedRAT, band: Any) -> bool:
    with attach_band(band, Options()) as other:
        return other.target == attached.target


def _write_all(band: Any, table: Any, options: Options) -> None:
    """Put what a table has, and the attached one has not, into the sidecar."""
    if isinstance(table, AttachedRAT):
        table = table.Clone()
    whole = Options(prefer="sidecar", update=True, override=True)
    rows = table.GetRowCount()
    with attach_band(band, whole) as attached:
        if options.prefer == "raster":
            raise NotWrittenError(
                f"{attached!r}: what is set could not be seen, where the raster's own columns are "
                "preferred"
            )
        if attached.GetRowCount() != rows:
            attached.SetRowCount(rows)
        for given in native_columns(table):
            attached.take(given)
        if table.GetLinearBinning()[0] and table.GetLinearBinning() != attached.GetLinearBinning():
            attached.SetLinearBinning(*table.GetLinearBinning()[1:])
        if table.GetTableType() != attached.GetTableType():
            attached.SetTableType(table.GetTableType())


def _read_array(rat: Any, field: int, start: int = 0, length: int | None = None) -> Any:
    if isinstance(rat, AttachedRAT):
        return rat.ReadAsArray(field, start, length)
    return _originals_of(gdal_array, "RATReadArray")(rat, field, start, length)


def _write_array(rat: Any, array: Any, field: int, start: int = 0) -> Any:
    if isinstance(rat, AttachedRAT):
        return rat.WriteArray(array, field, start)
    return _originals_of(gdal_array, "RATWriteArray")(rat, array, field, start)


def _originals_of(owner: Any, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = _GDALS[owner, name]
    return found


_REPLACED: dict[tuple[Any, str], Callable[..., Any]] = {
    (gdal.Band, "GetDefaultRAT"): _get_default_rat,
    (gdal.Band, "SetDefaultRAT"): _set_default_rat,
    (gdal_array, "RATReadArray"): _read_array,
    (gdal_array, "RATWriteArray"): _write_array,
}
_GDALS = {(owner, name): getattr(owner, name) for owner, name in _REPLACED}
