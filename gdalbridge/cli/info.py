"""``gdalbridge info``."""

import click

from .common import config_option, examples, in_words, json_option, print_json


@examples(
    "gdalbridge info seg.tif",
    "gdalbridge info s3://bucket/seg.tif.rat.zarr --json",
)
@click.command("info")
@click.argument("table")
@config_option
@json_option
def command(table: str, as_json: bool) -> None:
    """Describe TABLE: a sidecar; or a raster, with its own tables and its sidecars."""
    with in_words():
        from ..describe import info, info_text

        found = info(table)
        if as_json:
            print_json(found)
        else:
            click.echo(info_text(found))
