"""``gdalbridge cp``."""

from typing import Any

import click

from gdalbridge.cli.common import Command, examples, travel_options


@examples(
    "gdalbridge cp seg.tif s3://bucket/dir/",
    "gdalbridge cp s3://bucket/seg.tif s3://other/seg-2026.tif",
    "gdalbridge cp /vsis3/bucket/seg.tif . --dry-run",
    "gdalbridge cp seg.tif s3://bucket/dir/ --resume    # after Ctrl-C, a crash, a full disk",
)
@click.command("cp", cls=Command)
@travel_options
def command(source: str, target: str, **options: Any) -> Any:
    """Copy the raster SOURCE with its own files and all of its tables to TARGET.

    TARGET is a raster's name or a directory (on S3, a name that ends in /). Tables are copied
    first and the raster last. All copies are compared with their sources.
    """
    from gdalbridge.rasters.files import copy_raster

    return copy_raster(source, target, **options)
