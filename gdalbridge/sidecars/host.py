"""The host of sidecars: the raster that they lie beside.

GDAL is imported where it is needed: sidecars are listed without it.

A raster is its own host, with one exception. If a band of a VRT shows one band of one other
raster, with unchanged pixel values, and has no sidecars of its own, the other raster is its host.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from gdalbridge.errors import (
    BridgeError,
    GdalMissingError,
    RasterNotFoundError,
    SidecarNameError,
)
from gdalbridge.sidecars.naming import (
    Sidecar,
    find_sidecars,
    named,
    raster_label,
    sidecar_path,
    where,
    writable_sidecar_path,
)
from gdalbridge.sidecars.provenance import RASTER_ATTR, described, main_file, raster_attribute
from gdalbridge.sidecars.staleness import warn_of_changes
from ratzarr import RatZarrError

__all__ = ["Host", "Hosted", "chosen_sidecars", "find_hosted", "host_of"]

Options = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Host:
    """The raster that a band's sidecars lie beside."""

    raster: Any
    """Path, URL, ``/vsi`` name or open dataset."""
    band: int
    """The band of the raster that the sidecars belong to."""
    is_source: bool = False
    """True if the raster is the source of the requested VRT."""
    listed: list[list[Sidecar]] = field(default_factory=list, compare=False)
    """The listing for which :func:`host_of` chose this host; the first :meth:`find` takes it."""

    @property
    def key(self) -> str:
        """A key that is equal for all bands with the same sidecars."""
        return where(sidecar_path(self.raster, self.band))

    def find(self, *, storage_options: Options = None, must_list: bool = False) -> list[Sidecar]:
        """Return the band's sidecars; parameters as for :func:`find_sidecars`."""
        if self.listed:
            return self.listed.pop()
        return find_sidecars(
            self.raster, self.band, storage_options=storage_options, must_list=must_list
        )

    def writable_path(self, name: str | None, *, storage_options: Options = None) -> str:
        """Return the path for writing the sidecar of this name: an existing one, or a new one."""
        for one in self.find(storage_options=storage_options):
            if one.name == name:
                return one.path
        return writable_sidecar_path(self.raster, self.band, name)

    def now(self, dataset: Any, sidecar: str, storage_options: Options = None) -> dict[str, Any]:
        """Return the raster's current description, for a sidecar's attribute ``RASTER``.

        Parameters
        ----------
        dataset : gdal.Dataset
            The requested raster. If it is a VRT with a source, this method opens the source.
        sidecar : str
            Path or URL of the sidecar; the raster's recorded name is relative to it.
        storage_options : mapping, optional
            For opening the source.
        """
        if not self.is_source:
            return raster_attribute(dataset, self.band, sidecar)
        from gdalbridge.gdalio.datasets import opened

        with opened(self.raster, storage_options) as source:
            return raster_attribute(source, self.band, sidecar)

    def warn_of_changes(
        self,
        name: str,
        dataset: Any,
        recorded: Mapping[str, Any],
        storage_options: Options = None,
    ) -> None:
        """Warn about sidecars that no longer fit the raster, once for each.

        Parameters
        ----------
        name : str
            The requested raster.
        dataset : gdal.Dataset
            See :meth:`now`.
        recorded : mapping
            The attribute ``RASTER`` of each sidecar, by path; None for one without it.
        storage_options : mapping, optional
            For opening the source.
        """
        first = next((path for path, then in recorded.items() if then is not None), None)
        if first is not None:
            now = self.now(dataset, first, storage_options)
            warn_of_changes(name, now, recorded, stacklevel=5)

    def describing(self, dataset: Any, band: Any) -> Callable[[str], dict[str, Any]]:
        """Return a function that returns the attributes of a new sidecar, given its path.

        The function may be called after the dataset is closed.
        """
        if self.is_source:

            def of_source(sidecar: str) -> dict[str, Any]:
                return {RASTER_ATTR: self.now(None, sidecar)}

            return of_source
        from gdalbridge.gdalio.datasets import is_updatable, opened

        file = main_file(dataset)
        description = dataset.GetDescription()
        is_written = is_updatable(dataset, band)
        known = described(dataset, self.band)
        if is_written:
            # The writer may set a geotransform later.
            known["geotransform"] = None

        def of_raster(sidecar: str) -> dict[str, Any]:
            if file is None:
                return {RASTER_ATTR: known}
            if not is_written:
                # The dataset may be closed by now, so reopen its file. The file may be missing or
                # inaccessible.
                with suppress(BridgeError, RatZarrError), opened(description) as found:
                    return {RASTER_ATTR: raster_attribute(found, self.band, sidecar)}
            return {RASTER_ATTR: known | {"name": raster_label(description, sidecar)}}

        return of_raster


def host_of(dataset: Any, band: Any, path: Any = None, *, storage_options: Options = None) -> Host:
    """Return the host of a band's sidecars.

    Parameters
    ----------
    dataset : gdal.Dataset
    band : gdal.Band
        A band of the dataset.
    path : str or os.PathLike, optional
        The name that was used to open the dataset; by default its description.
    storage_options : mapping, optional
        For the sidecars' file system.

    Raises
    ------
    SidecarNameError
        If no sidecar can lie beside the raster.
    """
    from gdalbridge.gdalio.datasets import source_of

    raster = dataset if path is None else path
    number = band.GetBand()
    source = source_of(dataset, band)
    if source is None:
        sidecar_path(raster, number)
        return Host(raster, number)
    own, host = Host(raster, number), Host(*source, is_source=True)
    try:
        own.listed.append(own.find(storage_options=storage_options))
    except SidecarNameError:
        # The VRT is in memory.
        return host
    if not any(own.listed):
        with suppress(SidecarNameError):
            host.listed.append(host.find(storage_options=storage_options))
    return host if any(host.listed) else own


def chosen_sidecars(
    found: Sequence[Sidecar], names: Collection[str | None] | None, raster: str, of: str = ""
) -> list[Sidecar]:
    """Return the sidecars of these names; by default all.

    Parameters
    ----------
    found : sequence of Sidecar
    names : collection of str or None, optional
    raster, of : str
        For the message.

    Raises
    ------
    BridgeError
        For a missing sidecar; names the existing ones.
    """
    there = [one.name for one in found]
    for name in names or ():
        if name not in there:
            raise BridgeError(
                f"{raster} has no sidecar {named(name)}{of}; it has "
                f"{', '.join(map(named, there)) or 'none'}"
            )
    return [one for one in found if names is None or one.name in names]


@dataclass(frozen=True, slots=True)
class Hosted:
    """A sidecar, with the raster that it lies beside."""

    sidecar: Sidecar
    """The sidecar; its band number refers to the requested raster."""
    host: Host


def find_hosted(
    raster: Any, *, storage_options: Options = None, must_list: bool = False
) -> list[Hosted]:
    """Return the sidecars of all bands of a raster, including those of a VRT's sources.

    Only a VRT is opened. For a missing raster, sidecars are found by its name.

    Parameters
    ----------
    raster : str, os.PathLike or gdal.Dataset
    storage_options, must_list
        See :func:`gdalbridge.find_sidecars`. A VRT's source that may not be listed is left out, with a
        warning, in any case.
    """
    found = find_sidecars(raster, storage_options=storage_options, must_list=must_list)
    hosted = [Hosted(one, Host(raster, one.band)) for one in found]
    if hasattr(raster, "GetRasterBand") or os.fspath(raster).lower().endswith(".vrt"):
        with suppress(RasterNotFoundError, GdalMissingError):
            from gdalbridge.gdalio.datasets import opened

            with opened(raster, storage_options) as dataset:
                hosted += _of_sources(dataset, {one.band for one in found}, storage_options)
    return sorted(hosted, key=lambda one: (one.sidecar.band, one.sidecar.name or ""))


def _of_sources(dataset: Any, bands: Set[int], storage_options: Options) -> list[Hosted]:
    """Return the sidecars of a VRT's sources, for bands without sidecars of their own."""
    from gdalbridge.gdalio.datasets import source_of

    hosted: list[Hosted] = []
    listed: dict[str, list[Sidecar]] = {}
    for number in range(1, dataset.RasterCount + 1):
        source = None if number in bands else source_of(dataset, dataset.GetRasterBand(number))
        if source is None:
            continue
        host = Host(*source, is_source=True)
        with suppress(SidecarNameError):
            if host.raster not in listed:
                listed[host.raster] = find_sidecars(host.raster, storage_options=storage_options)
            hosted += [
                Hosted(replace(one, band=number), host)
                for one in listed[host.raster]
                if one.band == host.band
            ]
    return hosted
