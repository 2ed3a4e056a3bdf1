"""``gdalbridge build``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    checkpoint_option,
    examples,
    report_options,
    resume_run_option,
)


@examples(
    "gdalbridge build seg.tif",
    "gdalbridge build seg.tif --bbox --centroid --area",
    "gdalbridge build classes.tif --sparse",
    "gdalbridge build s3://bucket/seg.tif --recount",
    "gdalbridge build s3://bucket/seg.tif --resume    # after Ctrl-C, a crash, a lost connection",
)
@click.command("build", cls=Command)
@click.argument("raster")
@click.argument("sidecar", required=False)
@band_option
@click.option("--name", help="Write a further table of this name.")
@click.option(
    "--sparse/--no-sparse",
    default=None,
    help="One row for each value that occurs, with a column of values. By default the row number "
    "is the value, unless nearly all of many rows would be empty.",
)
@click.option("--bbox", is_flag=True, help="Add the bounding box: xmin, ymin, xmax, ymax.")
@click.option("--centroid", is_flag=True, help="Add the mean position of the pixels: x, y.")
@click.option("--area", is_flag=True, help="Add the area, in the raster's square units.")
@click.option(
    "--colors/--no-colors",
    default=True,
    show_default=True,
    help="Add the colour table and category names.",
)
@click.option("--recount", is_flag=True, help="Only count the pixels of an existing table again.")
@click.option("--overwrite", is_flag=True, help="Replace existing columns.")
@resume_run_option
@checkpoint_option
@click.option("--threads", type=click.IntRange(1), help="Threads that read the raster.")
@report_options
def command(raster: str, sidecar: str | None, **options: Any) -> Any:
    """Make RASTER's table from its pixels.

    The table has one row for each value, and its number of pixels in the column Histogram. It is
    written to the raster's sidecar, or to SIDECAR.
    """
    from gdalbridge.rasters.build import build

    return build(raster, sidecar, **options)
