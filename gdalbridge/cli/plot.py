"""``gdalbridge plot``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    config_option,
    examples,
    exclusive,
    quiet_option,
    reading_options,
)


@examples(
    "gdalbridge plot seg.tif ndvi -o ndvi.png",
    "gdalbridge plot seg.tif class --pixels -o classes.svg",
    "gdalbridge plot seg.tif ndvi --by class -o ndvi-by-class.png",
    "gdalbridge plot seg.tif nir --by red -o nir-by-red.pdf",
)
@click.command("plot", cls=Command)
@click.argument("table")
@click.argument("column")
@click.option("--by", help="Another column: classes, or the numbers of the horizontal axis.")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False),
    help="The file to write: .png, .svg or .pdf.",
)  # fmt: skip
@click.option(
    "--kind",
    type=click.Choice(["bars", "box", "density", "histogram", "scatter"]),
    help="By default chosen by the columns.",
)
@click.option("--bins", type=click.IntRange(1), help="Number of bins of a histogram.")
@click.option("--weights", metavar="COLUMN", help="Draw the sum of this column, not rows.")
@click.option(
    "--pixels", is_flag=True, help="Use the column with the usage PixelCount as weights."
)
@click.option("--log/--no-log", default=None, help="Logarithmic counts. By default if needed.")
@click.option(
    "--top", type=click.IntRange(1), default=20, show_default=True,
    help="Number of classes; rarer ones are drawn together.",
)  # fmt: skip
@click.option("--dpi", type=click.IntRange(20, 1200), default=150, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@band_option
@reading_options
@config_option
@quiet_option
def command(
    table: str, column: str, by: str | None, output: str, weights: str | None, pixels: bool,
    band: int, encoding: str | None, lossy: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Draw COLUMN of TABLE, a sidecar or a raster with its own table and its sidecars.

    A column of numbers is drawn as a histogram, a column of text or of few different integers as
    bars. With --by, numbers are drawn as one box for each class, and two columns of numbers as a
    scatter plot or a density.
    """
    exclusive(weights=weights is not None, pixels=pixels)
    from gdalbridge.plots import save_plot
    from gdalbridge.table import open_table

    with open_table(table, band, update=False, encoding=encoding, lossy=lossy) as there:
        save_plot(there, there.place, output, column, by, weights=weights or pixels, **options)
    if not quiet:
        click.echo(output)
