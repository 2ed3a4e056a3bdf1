"""``gdalbridge polygonize``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    columns_option,
    config_option,
    encoding_option,
    examples,
    json_option,
    lossy_option,
    quiet_option,
    say,
    unicode_text,
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
@click.option(
    "--where",
    callback=unicode_text,
    metavar="EXPRESSION",
    help="Only rows for which this is true, an expression as in calc.",
)
@click.option(
    "--connectedness",
    type=click.Choice(["4", "8"]),
    help="A feature for each connected area, rather than for each row. With 8, pixels that touch "
    "at a corner are connected.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--strict", is_flag=True, help="Refuse values that the format does not keep.")
@click.option(
    "--band", type=click.IntRange(1), default=1, show_default=True, help="Band of RASTER."
)
@click.option("--threads", type=click.IntRange(1), help="Threads that read pixels.")
@encoding_option
@lossy_option
@config_option
@json_option
@quiet_option
def command(
    raster: str, out: str, columns: tuple[str, ...], connectedness: str | None, as_json: bool,
    quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Write the outlines of RASTER's segments to OUT: .gpkg, .parquet, .shp or .geojson.

    Each row of the table that has pixels becomes a multipolygon with the row's columns.
    """
    from gdalbridge.rasters.polygonize import polygonize

    report = polygonize(
        raster,
        out,
        columns=columns or None,
        connectedness=None if connectedness is None else int(connectedness),
        progress=not (quiet or as_json),
        **options,
    )
    say(report, as_json=as_json, quiet=quiet)
