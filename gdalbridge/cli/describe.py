"""``gdalbridge describe``."""

import click

from gdalbridge.cli.common import (
    Command,
    config_option,
    encoding_option,
    examples,
    json_option,
    lossy_option,
    print_json,
    quiet_option,
)


@examples(
    "gdalbridge describe seg.tif",
    "gdalbridge describe seg.tif ndvi area class",
    "gdalbridge describe s3://bucket/seg.tif.rat.zarr --csv > columns.csv",
)
@click.command("describe", cls=Command)
@click.argument("table")
@click.argument("columns", nargs=-1, metavar="[COLUMN]...")
@click.option(
    "--band", type=click.IntRange(1), default=1, show_default=True, help="Band of a raster."
)
@encoding_option
@lossy_option
@config_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@quiet_option
def command(
    table: str, columns: tuple[str, ...], band: int, encoding: str | None, lossy: bool,
    as_json: bool, as_csv: bool, quiet: bool,
) -> None:  # fmt: skip
    """Print a line for each column of TABLE: its kind, its missing values and its distribution.

    TABLE is a sidecar, or a raster with its own table and its sidecars. `gdalbridge stats` has
    quantiles, weights and histograms.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv can't be combined")
    from gdalbridge.table import open_table

    with open_table(table, band, update=False, encoding=encoding, lossy=lossy) as there:
        found = there.describe(columns or None, progress=not (quiet or as_json or as_csv))
    if as_json:
        print_json(found.as_dict())
    elif as_csv:
        click.echo(found.as_csv(), nl=False)
    else:
        click.echo(str(found))
