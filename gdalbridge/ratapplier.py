"""Scripts over attribute tables of any size: a function is called for each block of rows.

The names are those of RIOS's module ``rios.ratapplier``. To run a RIOS script here, change its
import. docs/apply.md lists the differences.

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
from ratzarr import RatZarr
from ratzarr.format import OWN_COLUMN_ATTRS, PROVENANCE_ATTR

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
        ``userFunc(info, inputs, outputs)``, or ``userFunc(info, inputs, outputs, otherargs)`` if
        ``otherargs`` is given. ``info`` describes the block (:class:`RatApplierState`).
        ``inputs.x.column`` is an array with its rows of a column of input ``x``. Assigning an
        array to ``outputs.y.column`` writes it.
    inRats, outRats : RatAssociations
        The tables to read and to write. For a raster, results go to its sidecar, never to the
        raster.
    otherargs : object, optional
        Further data for the function. In serial execution all blocks get the same object; in
        parallel execution each block gets a copy, see :meth:`RatApplierControls.setMerge`.
    controls : RatApplierControls, optional
        Further settings.

    Returns
    -------
    ApplyReport
        A report of the work and its times.

    Raises
    ------
    BlockError
        If inputs have different numbers of rows, or a block does not fit its output.
    CancelledError
        If the progress cancelled; :meth:`RatApplierControls.setResume` continues.
    ColumnMissingError
        If the function requests a missing column of an input.
    ExecutorError
        If the requested executor cannot run the function.
    RatZarrError
        For values that a column cannot hold, and for errors of a store.
    BridgeError
        For other failures. Errors of the function itself are raised unchanged. A note on the error
        names the block. Unfinished columns are marked incomplete.
    """
    if not callable(userFunc):
        raise BridgeError(f"apply takes a function first: got {userFunc!r}")
    checked = (controls or RatApplierControls()).checked()
    return run_script(userFunc, inRats.handles(), outRats.handles(), otherargs, checked)


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
        A raster, with its own columns and its sidecars'; or a RatZarr of any name.
    outfile : str or os.PathLike
        A raster, whose sidecar is written, or a RatZarr of any name. If it does not exist, it
        becomes a new RatZarr. Existing columns are overwritten, and must be able to hold the
        values exactly.
    progress : None, True, callable or object
        See :mod:`gdalbridge.progress`.
    omitColumns : iterable of str, optional
        Columns to leave out.

    Returns
    -------
    ApplyReport or None
        None if there was no column to copy.

    Raises
    ------
    ColumnSelectionError
        If a column to be left out does not exist.
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
    """Return a handle for an existing table or raster, or for a new store."""
    text = os.fspath(name)
    if text.rstrip("/").endswith(SUFFIX):
        return RatZarrHandle(text)
    # Names that only GDAL understands: /vsimem/a.tif, NETCDF:a.nc:band.
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
