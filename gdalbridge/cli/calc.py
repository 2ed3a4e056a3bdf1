"""``gdalbridge calc``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    examples,
    named_values,
    reading_options,
    report_options,
)


def _dtype(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    if not values:
        return None
    if all("=" in value for value in values):
        return named_values(ctx, param, values)
    if len(values) > 1:
        raise click.BadParameter("expected one DTYPE, or NAME=DTYPE for each")
    return values[0]


@examples(
    "gdalbridge calc seg.tif --out ndvi '(nir - red) / (nir + red)'",
    "gdalbridge calc seg.tif --out big 'Histogram > 1000' --out ha 'Histogram * 0.09'",
    "gdalbridge calc s3://bucket/seg.tif --out wet \"coalesce(class = 'water', false)\"",
    "gdalbridge calc seg.tif --out 'b1 % b2' '\"b1\" % \"b2\"' --dtype uint8 --overwrite",
)
@click.command("calc", cls=Command)
@click.argument("raster")
@click.option(
    "--out",
    "outputs",
    type=(str, str),
    multiple=True,
    required=True,
    metavar="NAME EXPRESSION",
    help="Name of a new column, and its SQL expression. Can be repeated.",
)
@band_option
@click.option("--name", help="Write the columns to a further table of this name.")
@click.option(
    "--dtype",
    multiple=True,
    callback=_dtype,
    metavar="[NAME=]DTYPE",
    help="The stored type: float32, uint8, ... Values must still be equal.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing columns.")
@reading_options
@report_options
def command(raster: str, outputs: tuple[tuple[str, str], ...], **options: Any) -> Any:
    """Compute new columns of RASTER's table and write them to its sidecar.

    RASTER may also be a sidecar. An expression is DuckDB SQL over the columns of one row, without
    aggregates. Write text in single quotes, and column names that are not plain words in double
    quotes. Missing values are NULL; a stored NaN is NaN, which is greater than any number. ln(x) is
    the natural logarithm, and log(x) that to base 10.
    """
    if len(dict(outputs)) < len(outputs):
        raise click.UsageError("--out: two columns have the same name")
    from gdalbridge.sql.calc import calc

    return calc(raster, dict(outputs), **options)
