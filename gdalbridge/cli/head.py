"""``gdalbridge head``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    columns_option,
    config_option,
    examples,
    json_option,
    print_json,
    reading_options,
    unicode_text,
    where_option,
)


@examples(
    "gdalbridge head seg.tif",
    'gdalbridge head seg.tif --where "ndvi BETWEEN 0.6 AND 1" --sort -area --rows 5',
    "gdalbridge head s3://bucket/seg.tif.rat.zarr --rows 20 --from 1000 --column area",
)
@click.command("head", cls=Command)
@click.argument("table")
@click.option(
    "--rows", type=click.IntRange(0), default=10, show_default=True, help="Number of rows."
)
@click.option("--from", "start", type=click.IntRange(0), default=0, help="First row.")
@where_option
@click.option(
    "--sort",
    multiple=True,
    callback=unicode_text,
    metavar="[-]COLUMN",
    help="Sort by this column; with a minus the largest values first. Can be repeated.",
)
@band_option
@click.option("--name", help="Name of a further table, if TABLE is a raster.")
@columns_option
@reading_options
@click.option(
    "--all",
    "all_columns",
    is_flag=True,
    help="Show all columns, even if they do not fit the terminal.",
)
@config_option
@json_option
def command(
    table: str, encoding: str | None, lossy: bool, all_columns: bool, as_json: bool, **options: Any
) -> None:
    """Print the first rows of TABLE: a sidecar, or a raster's own columns with its sidecars'.

    With --where or --sort, these are the first rows of the result, and --from skips rows of the
    result. NaN and missing values are sorted last.
    """
    from gdalbridge.cli.table_output import head, head_text
    from gdalbridge.gdalio.read_options import ReadOptions
    from gdalbridge.text_table import terminal_width

    found = head(table, reading=ReadOptions(encoding, lossy), **options)
    if as_json:
        print_json(found)
    else:
        click.echo(head_text(found, None if all_columns else terminal_width()))
