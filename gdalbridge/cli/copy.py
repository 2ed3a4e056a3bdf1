"""``gdalbridge copy``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    columns_option,
    examples,
    reading_options,
    report_options,
)


@examples(
    "gdalbridge copy seg.tif",
    "gdalbridge copy /vsis3/bucket/seg.tif",
    "gdalbridge copy seg.tif s3://bucket/seg.tif.rat.zarr --column Histogram",
    "gdalbridge copy seg.kea --all-bands --overwrite",
    "gdalbridge copy seg.kea --all-bands --resume    # after Ctrl-C, a crash, a full disk",
)
@click.command("copy", cls=Command)
@click.argument("raster")
@click.argument("sidecar", required=False)
@band_option
@click.option(
    "--all-bands", is_flag=True, help="Copy every band that has a table, each to its own sidecar."
)
@click.option("--name", help="Name of a further table beside the band's first.")
@columns_option
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace existing columns; each stays readable until its replacement is complete.",
)
@click.option("--append", is_flag=True, help="Add columns to an existing sidecar.")
@click.option("--resume", is_flag=True, help="Continue an interrupted copy.")
@click.option("--chunk-rows", type=click.IntRange(1), help="Rows per chunk.")
@click.option("--block-rows", type=click.IntRange(1), help="Rows per block (whole chunks).")
@reading_options
@report_options
def command(
    raster: str, sidecar: str | None, band: int, all_bands: bool, columns: tuple[str, ...],
    encoding: str | None, lossy: bool, **options: Any,
) -> Any:  # fmt: skip
    """Copy the attribute table of RASTER to a sidecar, by default the one beside it."""
    if all_bands and sidecar is not None:
        raise click.UsageError("--all-bands writes one sidecar per band: SIDECAR can't be given")
    from gdalbridge.copying.to_sidecar import copy_to_sidecar
    from gdalbridge.gdalio.rat_reader import bands_with_table
    from gdalbridge.gdalio.read_options import ReadOptions

    bands = [band]
    if all_bands:
        # If no band has a table, the copy of this band raises the error.
        bands = bands_with_table(raster, options=ReadOptions(encoding, lossy)) or bands
    return [
        copy_to_sidecar(
            raster, sidecar, band=number, columns=columns or None, encoding=encoding, lossy=lossy,
            **options,
        )
        for number in bands
    ]  # fmt: skip
