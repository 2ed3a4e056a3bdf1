"""``gdalbridge import``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    columns_option,
    examples,
    reading_options,
    report_options,
)


def _listed(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return () if value is None else tuple(one.strip() for one in value.split(","))


@examples(
    "gdalbridge import owners.csv seg.tif --on row",
    "gdalbridge import prices.csv seg.tif --on class",
    "gdalbridge import result.parquet seg.tif --on row --columns ndvi,class --overwrite",
    "gdalbridge import s3://bucket/result.csv s3://bucket/seg.tif --on row",
)
@click.command("import", cls=Command)
@click.argument("table")
@click.argument("raster")
@click.option(
    "--on",
    required=True,
    metavar="COLUMN",
    help="The key: a column of both tables, or row for the row numbers.",
)
@columns_option
@click.option(
    "--columns", "listed", callback=_listed, metavar="A,B", help="Only these columns of TABLE."
)
@click.option("--overwrite", is_flag=True, help="Replace existing columns.")
@band_option
@click.option("--name", help="Write the columns to a further table of this name.")
@reading_options
@report_options
def command(
    table: str, raster: str, columns: tuple[str, ...], listed: tuple[str, ...], band: int,
    encoding: str | None, lossy: bool, **options: Any,
) -> Any:  # fmt: skip
    """Join columns of TABLE (CSV, Parquet or Arrow) into RASTER's sidecar, by a key.

    RASTER may also be a sidecar. Rows of RASTER whose key is not in TABLE get missing values.
    """
    from gdalbridge.table import open_table

    with open_table(raster, band, encoding=encoding, lossy=lossy) as opened:
        return opened.update_from(table, columns=[*columns, *listed] or None, **options)
