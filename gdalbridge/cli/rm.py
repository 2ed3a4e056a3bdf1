"""``gdalbridge rm``."""

import click

from gdalbridge.cli.common import (
    Command,
    config_option,
    dry_run_option,
    examples,
    json_option,
    quiet_option,
    say,
)


@examples(
    "gdalbridge rm seg.tif --dry-run    # shows what would be removed",
    "gdalbridge rm seg.tif",
    "gdalbridge rm s3://bucket/seg.tif",
)
@click.command("rm", cls=Command)
@click.argument("raster")
@dry_run_option
@config_option
@json_option
@quiet_option
def command(raster: str, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Remove RASTER with its own files and all of its tables, the raster last.

    If a table contains foreign objects, the command refuses before it removes anything.
    """
    from gdalbridge.rasters.files import remove_raster

    report = remove_raster(raster, dry_run=dry_run, progress=not (quiet or as_json))
    say(report, as_json=as_json, quiet=quiet)
