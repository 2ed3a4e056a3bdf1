"""Opening rasters and their bands, with whatever lies beside them in sight."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ._gdal import exceptions, gdal, silence
from .errors import RasterNotFoundError
from .vsis3 import prepare

__all__ = ["band_of", "open_dataset", "siblings_known", "siblings_visible"]


def open_dataset(
    raster: Any, *, update: bool = False, siblings: Sequence[str] | None = None
) -> Any:
    """Open a raster by its path, URL or ``/vsi`` name.

    Parameters
    ----------
    raster : str or os.PathLike
        The raster.
    update : bool
        For writing.
    siblings : sequence of str, optional
        The files of its directory, where that is known: GDAL asks for dozens by their names
        otherwise, a request for each.

    Raises
    ------
    RasterNotFoundError
        With GDAL's own reason.
    """
    name = prepare(os.fspath(raster))
    flags = gdal.OF_RASTER | (gdal.OF_UPDATE if update else gdal.OF_READONLY)
    with exceptions(), silence(), siblings_visible(name):
        try:
            if siblings is None:
                dataset = gdal.OpenEx(name, flags)
            else:
                dataset = gdal.OpenEx(name, flags, sibling_files=list(siblings))
        except RuntimeError as error:
            dataset, reason = None, str(error)
        else:
            reason = "GDAL gives no reason"
    if dataset is None:
        how = "for writing " if update else ""
        raise RasterNotFoundError(f"{raster} can't be opened {how}as a raster: {reason}")
    return dataset


def band_of(dataset: Any, band: object, name: str) -> Any:
    """Return a band of a dataset.

    Raises
    ------
    RasterNotFoundError
        Says how many bands there are.
    """
    count = dataset.RasterCount
    if isinstance(band, bool) or not isinstance(band, int) or not 1 <= band <= count:
        raise RasterNotFoundError(
            f"{name} has {count} bands, counted from 1: there is no {band!r}"
        )
    return dataset.GetRasterBand(band)


@contextmanager
def siblings_visible(name: str) -> Iterator[None]:
    """Let GDAL see the .aux.xml beside a raster, where a table may be."""
    changed: dict[str, str | None] = {}
    # On a local disk it hides the file as well.
    if (gdal.GetConfigOption("GDAL_DISABLE_READDIR_ON_OPEN") or "").upper() == "EMPTY_DIR":
        changed["GDAL_DISABLE_READDIR_ON_OPEN"] = "TRUE"
    if name.startswith("/vsi"):
        allowed = gdal.GetConfigOption("CPL_VSIL_CURL_ALLOWED_EXTENSIONS")
        if allowed and ".aux.xml" not in allowed:
            separator = "," if "," in allowed else " "
            changed["CPL_VSIL_CURL_ALLOWED_EXTENSIONS"] = f"{allowed}{separator}.aux.xml"
    with _configured(changed):
        yield


@contextmanager
def siblings_known() -> Iterator[None]:
    """Keep GDAL from asking for files by their names, of a dataset that was told its siblings."""
    # Its overviews and masks are datasets too, and each would ask for dozens.
    with _configured({"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}):
        yield


@contextmanager
def _configured(options: Mapping[str, str | None]) -> Iterator[None]:
    before = {key: gdal.GetThreadLocalConfigOption(key) for key in options}
    for key, value in options.items():
        gdal.SetThreadLocalConfigOption(key, value)
    try:
        yield
    finally:
        for key, value in before.items():
            gdal.SetThreadLocalConfigOption(key, value)
