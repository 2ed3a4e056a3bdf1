"""``gdalbridge mv``."""

from typing import Any

from gdalbridge.cli.common import examples
from gdalbridge.cli.travelling import travel_command


def _move(*places: str, **options: Any) -> Any:
    # Imported on use, so that --help does not wait for GDAL.
    from gdalbridge.rasters.files import move_raster

    return move_raster(*places, **options)


command = examples(
    "gdalbridge mv seg.tif segments.tif",
    "gdalbridge mv seg.tif s3://bucket/dir/",
    "gdalbridge mv s3://bucket/seg.tif s3://bucket/old/ --overwrite",
)(
    travel_command(
        "mv",
        _move,
        """Move the raster SOURCE with its own files and all of its tables to TARGET.

        Within one file system, they are renamed. Elsewhere they are copied and compared, and
        the source is removed if it has not changed meanwhile.
        """,
    )
)
