"""``gdalbridge stats``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    config_option,
    examples,
    exclusive,
    json_option,
    print_json,
    quiet_option,
    reading_options,
)


def _quantiles(ctx: click.Context, param: click.Parameter, value: str) -> list[float]:
    try:
        return [float(text) for text in value.split(",") if text.strip()]
    except ValueError:
        raise click.BadParameter(f"expected numbers separated by commas: got {value!r}") from None


@examples(
    "gdalbridge stats seg.tif",
    "gdalbridge stats seg.tif ndvi area --weights Histogram --bins 20",
    "gdalbridge stats s3://bucket/seg.tif.rat.zarr ndvi --quantiles 0.01,0.5,0.99 --json",
    "gdalbridge stats seg.tif --pixels    # counts pixels, not rows",
)
@click.command("stats", cls=Command)
@click.argument("table")
@click.argument("columns", nargs=-1, metavar="[COLUMN]...")
@click.option(
    "--weights", metavar="COLUMN", help="Column with the weight of each row: whole numbers."
)
@click.option(
    "--pixels", is_flag=True, help="Use the column with the usage PixelCount as weights."
)
@click.option(
    "--quantiles",
    default="0.05,0.25,0.5,0.75,0.95",
    show_default=True,
    callback=_quantiles,
    help="Separated by commas.",
)
@click.option("--bins", type=click.IntRange(1), help="Number of bins of a histogram.")
@click.option("--full", is_flag=True, help="Show every statistic of each column, with all digits.")
@band_option
@reading_options
@config_option
@json_option
@quiet_option
def command(
    table: str, columns: tuple[str, ...], weights: str | None, pixels: bool, bins: int | None,
    full: bool, as_json: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Print statistics of TABLE's columns.

    TABLE is a sidecar, or a raster with its own table and its sidecars.
    """
    exclusive(weights=weights is not None, pixels=pixels)
    from gdalbridge.cli.stats_text import stats_text
    from gdalbridge.sql.stats import column_stats
    from gdalbridge.text_table import terminal_width

    found = column_stats(
        table, columns or None, weights=weights or pixels, histogram=bins,
        progress=not (quiet or as_json), **options,
    )  # fmt: skip
    if as_json:
        print_json({name: one.as_dict() for name, one in found.items()})
    elif not quiet:
        click.echo(stats_text(found, full=full, width=terminal_width()))
