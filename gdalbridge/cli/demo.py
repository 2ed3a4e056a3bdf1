"""``gdalbridge demo``."""

import click

from gdalbridge.cli.common import Command


@click.command("demo", cls=Command)
@click.option("--keep", type=click.Path(), help="Work in this new directory, and keep it.")
def command(keep: str | None) -> None:
    """Demonstrate the whole round trip with a real raster, and compare it with GDAL."""
    from gdalbridge.cli.demo_files import run

    run(click.echo, keep)
