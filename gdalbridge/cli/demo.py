"""``gdalbridge demo``."""

import click

from gdalbridge.cli.common import in_words


@click.command("demo")
@click.option(
    "--keep", type=click.Path(), help="Directory to work in and to leave (it must not exist)."
)
def command(keep: str | None) -> None:
    """Show the whole round trip with a real raster, and check it against GDAL."""
    with in_words():
        from gdalbridge.cli.demo_files import run

        run(click.echo, keep)
