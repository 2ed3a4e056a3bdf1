"""``gdalbridge bake``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    accept_stale_option,
    cast_option,
    columns_option,
    creation_options,
    examples,
    reading_options,
    report_options,
)


@examples(
    "gdalbridge bake seg.tif out.tif",
    "gdalbridge bake seg.tif out.img --column area --column class --strict",
    "gdalbridge bake s3://bucket/seg.tif out.tif --of COG --co COMPRESS=ZSTD",
    "gdalbridge bake seg.tif --vrt    # writes seg.tif.vrt",
    "gdal raster pipeline --config GDAL_ENABLE_EXTERNAL=YES ! read seg.tif ! external",
    "    'gdalbridge bake <INPUT> <OUTPUT> --sidecar seg.tif -q' ! write out.tif",
)
@click.command("bake", cls=Command)
@click.argument("raster")
@click.argument("out", required=False)
@click.option(
    "--vrt", is_flag=True, help="Write a VRT that refers to RASTER, without copying pixels."
)
@click.option("--band", type=click.IntRange(1), help="Only this band's table.")
@columns_option
@click.option(
    "--sidecar",
    "sidecars",
    multiple=True,
    help="Use this table, or all tables of this raster, instead of those beside RASTER.",
)
@cast_option
@creation_options
@click.option("--overwrite", is_flag=True, help="Replace an existing raster.")
@click.option(
    "--strict", is_flag=True, help="Refuse losses: values that the format can't hold exactly."
)
@reading_options
@accept_stale_option
@click.option(
    "--native",
    is_flag=True,
    help="Keep GDAL's newest column types and its choice of where to store the table; older "
    "GDAL can't read them.",
)
@report_options
def command(
    raster: str, out: str | None, columns: tuple[str, ...], sidecars: tuple[str, ...],
    **options: Any,
) -> Any:  # fmt: skip
    """Copy RASTER to OUT, with an ordinary GDAL table that includes the sidecars' columns."""
    if out is None and not options["vrt"]:
        raise click.UsageError("OUT is required, except with --vrt")
    from gdalbridge.rasters.bake import bake

    return bake(raster, out, columns=columns or None, sidecars=sidecars or None, **options)
