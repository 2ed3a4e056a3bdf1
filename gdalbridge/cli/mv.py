"""``gdalbridge mv``."""

from typing import Any

import click

from gdalbridge.cli.common import Command, examples, travel_options


@examples(
    "gdalbridge mv seg.tif segments.tif",
    "gdalbridge mv seg.tif s3://bucket/dir/",
    "gdalbridge mv s3://bucket/seg.tif s3://bucket/old/ --overwrite",
)
@click.command("mv", cls=Command)
@travel_options
def command(source: str, target: str, **options: Any) -> Any:
    """Move the raster SOURCE with its own files and all of its tables to TARGET.

    Within one file system, they are renamed. Elsewhere they are copied and compared, and the
    source is removed if it has not changed meanwhile.
    """
    from gdalbridge.rasters.files import move_raster

    return move_raster(source, target, **options)
