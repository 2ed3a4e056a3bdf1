"""``gdalbridge touch``."""

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
    "gdalbridge touch seg.tif --dry-run    # shows the differences",
    "gdalbridge touch seg.tif",
    "gdalbridge touch seg.tif --sidecar s3://bucket/tables/seg.rat.zarr --band 2",
)
@click.command("touch", cls=Command)
@click.argument("raster")
@click.option("--sidecar", help="This table; by default all tables beside RASTER.")
@click.option("--band", type=click.IntRange(1), help="Only this band's tables.")
@dry_run_option
@config_option
@json_option
@quiet_option
def command(
    raster: str, sidecar: str | None, band: int | None, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Accept that RASTER has changed, and record its current state in its tables.

    Prints the differences. Neither the raster nor any column is changed.
    """
    from gdalbridge.sidecars.accept import touch

    reports = touch(raster, sidecar=sidecar, band=band, dry_run=dry_run)
    say(reports, as_json=as_json, quiet=quiet)
