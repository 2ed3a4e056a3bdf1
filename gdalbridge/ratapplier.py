"""Scripts over attribute tables of any size: a function that is called block by block.

The names are those of RIOS's module ``rios.ratapplier``: a script written for that one runs
here when its import is changed. docs/apply.md says what differs.

>>> import numpy, tempfile
>>> from gdalbridge import ratapplier
>>> from ratzarr import RatZarr
>>> path = tempfile.mkdtemp() + "/seg.tif.rat.zarr"
>>> with RatZarr(path) as table:
...     table.setRowCount(4)
...     table.createColumn("pixels", numpy.int32)
...     table.writeBlock("pixels", [10, 20, 30, 40], 0)
>>> inRats, outRats = ratapplier.RatAssociations(), ratapplier.RatAssociations()
>>> inRats.seg = outRats.seg = ratapplier.RatZarrHandle(path)
>>> def hectares(info, inputs, outputs):
...     outputs.seg.area = inputs.seg.pixels * 0.09
>>> report = ratapplier.apply(hectares, inRats, outRats)
>>> RatZarr(path, readOnly=True).readBlock("area", 0, 4)
array([0.9, 1.8, 2.7, 3.6])
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gdalbridge.apply.block import RatApplierState
from gdalbridge.apply.controls import (
    RCM_EQUALS_INPUT,
    RCM_FIXED,
    RCM_INCREMENT,
    ApplyReport,
    Handle,
    OtherArguments,
    RatApplierControls,
    RatAssociations,
    RatHandle,
    RatZarrHandle,
)
from gdalbridge.apply.run import run_script
from gdalbridge.errors import BridgeError, ColumnSelectionError
from gdalbridge.sidecars.naming import SUFFIX
from gdalbridge.sidecars.provenance import PROVENANCE_ATTR
from ratzarr import RatZarr
from ratzarr.format import OWN_COLUMN_ATTRS

__all__ = [
    "RCM_EQUALS_INPUT",
    "RCM_FIXED",
    "RCM_INCREMENT",
    "ApplyReport",
    "OtherArguments",
    "RatApplierControls",
    "RatApplierState",
    "RatAssociations",
    "RatHandle",
    "RatZarrHandle",
    "apply",
    "copyRAT",
]


def apply(
    userFunc: Callable[..., Any],
    inRats: RatAssociations,
    outRats: RatAssociations,
    otherargs: Any = None,
    controls: RatApplierControls | None = None,
) -> ApplyReport:
    """Call a function for each block of rows of some tables.

    Parameters
    ----------
    userFunc : callable
        ``userFunc(info, inputs, outputs)``, or ``userFunc(info, inputs, outputs,
        otherargs)`` where there are any. ``info`` says which block it is
        (:class:`RatApplierState`); ``inputs.x.column`` are its rows of a column of the
        input ``x``; setting ``outputs.y.column`` to an array writes them.
    inRats, outRats : RatAssociations
        The tables that are read and written. Of a raster the sidecar is written, never the
        raster itself.
    otherargs : object, optional
        Whatever else the function is to be given. Run serially it is the same object for
        all blocks; in parallel each block has a copy, see
        :meth:`RatApplierControls.setMerge`.
    controls : RatApplierControls, optional
        Everything else.

    Returns
    -------
    ApplyReport
        What was done, and where the time went.

    Raises
    ------
    BlockError
        Where the inputs differ in their numbers of rows; for a block that its output can't
        take.
    CancelledError
        Where the progress said so: :meth:`RatApplierControls.setResume` goes on.
    ColumnMissingError
        Where the function asks an input for a column that is not there.
    ExecutorError
        Where it can't be run in the executor that was asked for.
    RatZarrError
        For values that a column can't hold, and for what goes wrong with a store.
    BridgeError
        For everything else. Errors of the function itself come as they are. Whatever went
        wrong in a block says in a note which one it was; columns that are not finished say
        so to every reader.
    """
    if not callable(userFunc):
        raise BridgeError(f"apply takes a function first: got {userFunc!r}")
    settings = (controls or RatApplierControls()).settings()
    return run_script(userFunc, inRats.handles(), outRats.handles(), otherargs, settings)


def copyRAT(
    infile: str | os.PathLike[str],
    outfile: str | os.PathLike[str],
    progress: Any = None,
    omitColumns: Iterable[str] | None = None,
) -> ApplyReport | None:
    """Copy all columns of one table to another, with their usages and other attributes.

    Parameters
    ----------
    infile : str or os.PathLike
        A raster: its own columns and its sidecars'. Or any RatZarr, whatever its name.
    outfile : str or os.PathLike
        A raster, whose sidecar is written, or any RatZarr. Where there is nothing of this
        name, it becomes a new RatZarr. Columns that are there are overwritten; they must be
        able to hold the values as they are.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.
    omitColumns : iterable of str, optional
        Columns that are left out.

    Returns
    -------
    ApplyReport or None
        None where there was no column to copy.

    Raises
    ------
    ColumnSelectionError
        Where a column that is to be left out is not there.
    """
    from gdalbridge.apply.inputs import Sources

    inputs, outputs = RatAssociations(), RatAssociations()
    inputs.source, outputs.target = _handle(infile), _handle(outfile, creates=True)
    sources = Sources(strings=True)
    try:
        names = sources[inputs.source].names()
    finally:
        sources.close()
    omitted = [omitColumns] if isinstance(omitColumns, str) else list(omitColumns or ())
    for name in omitted:
        if name not in names:
            raise ColumnSelectionError(f"{infile} has no column {name!r} to be left out")
    wanted = [name for name in names if name not in omitted]
    if not wanted:
        return None
    controls = RatApplierControls()
    controls.setProgress(progress)
    controls.setUseStringDType(True)
    return apply(_copy_columns, inputs, outputs, wanted, controls)


def _handle(name: str | os.PathLike[str], *, creates: bool = False) -> Handle:
    """Return a handle for what is at this place; for a new store, where nothing is."""
    text = os.fspath(name)
    if text.rstrip("/").endswith(SUFFIX):
        return RatZarrHandle(text)
    # Names that mean something to GDAL alone: /vsimem/a.tif, NETCDF:a.nc:band.
    is_gdals = text.startswith("/vsi") and not text.startswith("/vsis3/")
    if is_gdals or (":" in text and "://" not in text and not Path(text).exists()):
        return RatHandle(text)
    if RatZarr.isValidRatZarr(text) or (creates and not RatZarr.exists(text)):
        return RatZarrHandle(text)
    return RatHandle(text)


def _copy_columns(info: RatApplierState, inputs: Any, outputs: Any, names: list[str]) -> None:
    for name in names:
        outputs.target[name] = inputs.source[name]
        if info.blockNdx == 0:
            outputs.target.setAttributes(name, _kept(inputs.source.getAttributes(name)))


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    own = OWN_COLUMN_ATTRS | {PROVENANCE_ATTR}
    return {name: value for name, value in attributes.items() if name not in own}
