"""``gdalbridge info``."""

import click

from gdalbridge.cli.common import (
    Command,
    config_option,
    examples,
    json_option,
    print_json,
    reading_options,
)


@examples(
    "gdalbridge info seg.tif",
    "gdalbridge info seg.tif --band 2",
    "gdalbridge info s3://bucket/seg.tif.rat.zarr --json",
)
@click.command("info", cls=Command)
@click.argument("table")
@click.option("--band", type=click.IntRange(1), help="Only this band of a raster.")
@reading_options
@config_option
@json_option
def command(
    table: str, band: int | None, encoding: str | None, lossy: bool, as_json: bool
) -> None:
    """Describe TABLE: a sidecar; or a raster, with its own tables and its sidecars."""
    from gdalbridge.cli.table_output import info, info_text
    from gdalbridge.gdalio.read_options import ReadOptions

    found = info(table, ReadOptions(encoding, lossy), band)
    if as_json:
        print_json(found)
    else:
        click.echo(info_text(found))
