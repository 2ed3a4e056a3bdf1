"""``gdalbridge rm``."""

from typing import Any

import click

from gdalbridge.cli.common import Command, dry_run_option, examples, report_options


@examples(
    "gdalbridge rm seg.tif --dry-run    # shows what would be removed",
    "gdalbridge rm seg.tif",
    "gdalbridge rm s3://bucket/seg.tif",
)
@click.command("rm", cls=Command)
@click.argument("raster")
@dry_run_option
@report_options
def command(raster: str, **options: Any) -> Any:
    """Remove RASTER with its own files and all of its tables, the raster last.

    If a table contains foreign objects, the command refuses before it removes anything.
    """
    from gdalbridge.rasters.files import remove_raster

    return remove_raster(raster, **options)
