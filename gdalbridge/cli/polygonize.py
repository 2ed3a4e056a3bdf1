"""``gdalbridge polygonize``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    columns_option,
    examples,
    reading_options,
    report_options,
    where_option,
)


@examples(
    "gdalbridge polygonize seg.tif seg.gpkg",
    "gdalbridge polygonize seg.tif forest.gpkg --where \"class = 'forest'\" --column ndvi",
    "gdalbridge polygonize seg.tif parts.parquet --connectedness 8",
)
@click.command("polygonize", cls=Command)
@click.argument("raster")
@click.argument("out")
@columns_option
@where_option
@click.option(
    "--connectedness",
    type=click.Choice(["4", "8"]),
    help="A feature for each connected area, rather than for each row. With 8, pixels that touch "
    "at a corner are connected.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--strict", is_flag=True, help="Refuse values that the format does not keep.")
@band_option
@click.option("--threads", type=click.IntRange(1), help="Threads that read pixels.")
@reading_options
@report_options
def command(
    raster: str, out: str, columns: tuple[str, ...], connectedness: str | None, **options: Any
) -> Any:
    """Write the outlines of RASTER's segments to OUT: .gpkg, .parquet, .shp or .geojson.

    Each row of the table that has pixels becomes a multipolygon with the row's columns.
    """
    from gdalbridge.rasters.polygonize import polygonize

    return polygonize(
        raster,
        out,
        columns=columns or None,
        connectedness=None if connectedness is None else int(connectedness),
        **options,
    )
