"""Give attached tables to code that knows only GDAL.

:func:`enable` replaces ``Band.GetDefaultRAT`` of GDAL's Python bindings, for the whole process, by a
function that returns the attached table. It replaces ``SetDefaultRAT`` by a function that writes to
the sidecar instead of the raster. GDAL's functions for reading and writing arrays accept attached
tables. :func:`disable` restores GDAL's own functions.
"""

import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, Self

from gdalbridge.attached_rat.attach import Options, attach_band, key_of
from gdalbridge.attached_rat.rat import AttachedRAT
from gdalbridge.errors import BridgeError, LossWarning, NotWrittenError, SidecarNameError
from gdalbridge.gdalio.compat import gdal, gdal_array, own_rat, set_own_rat
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.gdalio.vsis3 import prepare_all
from ratzarr import RedirectError, StorePermissionError

__all__ = ["Enabled", "disable", "enable"]

_lock = threading.RLock()
_stack: list["Enabled"] = []
_originals: dict[tuple[Any, str], Any] = {}
"""The replaced functions of GDAL; empty while none is replaced."""
_undo: list[Callable[[], None]] = []
_READ_ARRAY, _WRITE_ARRAY = gdal_array.RATReadArray, gdal_array.RATWriteArray


class Enabled:
    """The effect of one :func:`enable` call; as a context manager, leaving it ends the effect."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _leave(self)


def enable(
    *,
    update: bool = True,
    override: bool = False,
    prefer: str = "sidecar",
    encoding: str | None = None,
    lossy: bool = False,
) -> Enabled:
    """Make ``Band.GetDefaultRAT()`` return attached tables, in all code of this process.

    GDAL's ``/vsis3/`` then also uses the S3 server set in the AWS environment variables.

    Calls can be nested, also with other arguments. The last call applies until
    :func:`disable` undoes it or its ``with`` block ends.

    Parameters
    ----------
    update : bool
        If True, a program's changes to a table go to a sidecar, including tables that it
        passes to ``SetDefaultRAT``. If False, attached tables are read-only, and
        ``SetDefaultRAT`` with any other table writes to the raster, as in GDAL.
    override, prefer, encoding, lossy
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
        raise BridgeError(f'prefer must be "sidecar" or "raster": got {prefer!r}')
    reading = ReadOptions(encoding, lossy)
    enabled = Enabled(Options(prefer=prefer, update=update, override=override, reading=reading))
    with _lock:
        if not _stack:
            for (owner, name), ours in _REPLACED.items():
                _originals[owner, name] = vars(owner)[name]
                _put(owner, name, ours)
            _undo.append(prepare_all())
        _stack.append(enabled)
    return enabled


def disable() -> None:
    """Undo the last :func:`enable` still in effect, if any.

    Attached tables that code already has keep working.
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
                _put(owner, name, original)
            _originals.clear()
            while _undo:
                _undo.pop()()


def _options() -> Options | None:
    with _lock:
        return _stack[-1].options if _stack else None


def _put(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)
    if getattr(owner, name) is not value:
        # Python 3.12 sometimes returns a class's old attribute from its cache.
        clear = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
        clear()


# ---- replacements of GDAL's functions


def _get_default_rat(band: Any) -> Any:
    options = _options()
    if options is None or not _is_of_a_raster(band):
        return own_rat(band)
    try:
        attached = attach_band(band, options)
    except SidecarNameError:
        # The raster can't have sidecars, such as one in memory.
        return own_rat(band)
    except RedirectError:
        raise
    except StorePermissionError as error:
        # A bucket may allow reading the raster but not listing the objects beside it.
        warnings.warn(
            f"{band.GetDataset().GetDescription()}: its sidecars can't be accessed: {error}",
            LossWarning,
            stacklevel=2,
        )
        return own_rat(band)
    # Programs test for None to see if the band has a table.
    return None if attached.is_empty else attached


def _is_of_a_raster(band: Any) -> bool:
    """Return True for a numbered band of a dataset, False for a mask and the like."""
    return band.GetBand() > 0 and band.GetDataset() is not None


def _set_default_rat(band: Any, table: Any) -> Any:
    options = _options()
    is_attached = isinstance(table, AttachedRAT)
    try:
        key = None if options is None or not _is_of_a_raster(band) else key_of(band)
    except SidecarNameError:
        key = None
    if key is not None and is_attached and table.key == key:
        # The band already has this table.
        table.flush()
        return gdal.CE_None
    if is_attached:
        table = table.Clone()
    if options is None or key is None or not options.update:
        return set_own_rat(band, table)
    name = band.GetDataset().GetDescription()
    if table is None:
        raise NotWrittenError(
            f"{name}: the raster's own table can't be removed while gdalbridge.enable sends "
            "changes to sidecars"
        )
    if options.prefer == "raster":
        raise NotWrittenError(
            f'{name}: the table was not set, because gdalbridge.enable(prefer="raster") would '
            "hide it behind the raster's own columns"
        )
    writing = Options(update=True, override=True, reading=options.reading)
    with attach_band(band, writing) as attached:
        attached.take(table)
    return gdal.CE_None


def _read_array(rat: Any, field: int, start: int = 0, length: int | None = None) -> Any:
    if isinstance(rat, AttachedRAT):
        return rat.ReadAsArray(field, start, length)
    return _READ_ARRAY(rat, field, start, length)


def _write_array(rat: Any, array: Any, field: int, start: int = 0) -> Any:
    if isinstance(rat, AttachedRAT):
        return rat.WriteArray(array, field, start)
    return _WRITE_ARRAY(rat, array, field, start)


_REPLACED: dict[tuple[Any, str], Callable[..., Any]] = {
    (gdal.Band, "GetDefaultRAT"): _get_default_rat,
    (gdal.Band, "SetDefaultRAT"): _set_default_rat,
    (gdal_array, "RATReadArray"): _read_array,
    (gdal_array, "RATWriteArray"): _write_array,
}
