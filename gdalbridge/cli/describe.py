"""``gdalbridge describe``."""

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
)


@examples(
    "gdalbridge describe seg.tif",
    "gdalbridge describe seg.tif ndvi area class",
    "gdalbridge describe s3://bucket/seg.tif.rat.zarr --csv > columns.csv",
)
@click.command("describe", cls=Command)
@click.argument("table")
@click.argument("columns", nargs=-1, metavar="[COLUMN]...")
@band_option
@reading_options
@config_option
@json_option
@csv_option
@quiet_option
def command(
    table: str, columns: tuple[str, ...], band: int, encoding: str | None, lossy: bool,
    as_json: bool, as_csv: bool, quiet: bool,
) -> None:  # fmt: skip
    """Print a line for each column of TABLE: its kind, its missing values and its distribution.

    TABLE is a sidecar, or a raster with its own table and its sidecars. `gdalbridge stats` has
    quantiles, weights and histograms.
    """
    exclusive(json=as_json, csv=as_csv)
    from gdalbridge.table import open_table

    with open_table(table, band, update=False, encoding=encoding, lossy=lossy) as there:
        found = there.describe(columns or None, progress=not (quiet or as_json or as_csv))
    say(found, as_json=as_json, as_csv=as_csv, quiet=quiet)
