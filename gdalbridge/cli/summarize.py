"""``gdalbridge summarize``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    config_option,
    csv_option,
    examples,
    exclusive,
    json_option,
    quiet_option,
    reading_options,
    say,
    unicode_text,
)
from gdalbridge.cli.exits import say_note


def _names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    unicode_text(ctx, param, values)
    return [one.strip() for text in values for one in text.split(",") if one.strip()]


@examples(
    "gdalbridge summarize seg.tif --by class",
    "gdalbridge summarize seg.tif --by class --columns ndvi,height --csv > classes.csv",
    "gdalbridge summarize seg.tif --by class --column height --stat mean,max",
)
@click.command("summarize", cls=Command)
@click.argument("raster")
@click.option(
    "--by",
    multiple=True,
    required=True,
    callback=unicode_text,
    metavar="COLUMN",
    help="The column with the classes. Can be repeated, for combinations of classes.",
)
@click.option(
    "--columns",
    callback=_names,
    multiple=True,
    metavar="COLUMN,...",
    help="Columns of numbers to take statistics of.",
)
@click.option(
    "--column",
    "more",
    multiple=True,
    callback=unicode_text,
    metavar="COLUMN",
    help="One such column, whose name may contain a comma. Can be repeated.",
)
@click.option(
    "--stat",
    "stats",
    multiple=True,
    default=("mean",),
    show_default=True,
    callback=_names,
    help="Statistics: mean (weighted by pixels), min, max.",
)
@band_option
@reading_options
@config_option
@json_option
@csv_option
@quiet_option
def command(
    raster: str, by: tuple[str, ...], columns: list[str], more: tuple[str, ...],
    stats: list[str], as_json: bool, as_csv: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Print the segments, pixels and area of each class of RASTER, and means of columns.

    Means are weighted by the pixels; NaN and missing values don't count. Rows without pixels are
    left out.
    """
    exclusive(json=as_json, csv=as_csv)
    from gdalbridge.rasters.summarize import summarize

    found = summarize(raster, by, columns=[*columns, *more], stats=stats, **options)
    say(found, as_json=as_json, as_csv=as_csv, quiet=quiet)
    if found.is_cut and not (as_json or as_csv or quiet):
        say_note("--csv and --json print all classes")
