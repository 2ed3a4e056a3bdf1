"""``gdalbridge sql``."""

import sys
from contextlib import ExitStack
from pathlib import Path
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
    print_csv,
    print_json_text,
    reading_options,
    unicode_text,
)


def _named(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in unicode_text(ctx, param, values):
        name, equals, place = value.partition("=")
        if not (name and equals and place):
            raise click.BadParameter(f"expected NAME=TABLE, got {value!r}")
        if name.casefold() in {"rat", *(one.casefold() for one in found)}:
            raise click.BadParameter(f"{name!r} is the name of another table")
        found[name] = place
    return found


@examples(
    'gdalbridge sql seg.tif "SELECT class, sum(Histogram) FROM rat GROUP BY class"',
    'gdalbridge sql seg.tif "FROM rat WHERE row BETWEEN 1000 AND 1009" --csv',
    'gdalbridge sql s3://bucket/seg.tif "SELECT row, ndvi FROM rat ORDER BY ndvi" -o ndvi.parquet',
    "gdalbridge sql a.tif --table b=b.tif "
    '"SELECT rat.row, b.ndvi - rat.ndvi AS change FROM rat JOIN b USING (row)"',
)
@click.command("sql", cls=Command)
@click.argument("raster")
@click.argument("query", callback=unicode_text)
@click.option(
    "--table", "tables", multiple=True, callback=_named, metavar="NAME=TABLE",
    help="A further table: a raster, a sidecar, or a .parquet, .arrow, .feather or .csv file. "
    "Can be repeated.",
)  # fmt: skip
@csv_option
@json_option
@click.option(
    "-o", "--output", metavar="FILE",
    help="Write all rows to a file: .parquet, .arrow, .csv or .json; also to S3 and other URLs.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an existing FILE.")
@band_option
@click.option(
    "--allow-files",
    is_flag=True,
    help="Let the query read and write files and URLs, and load DuckDB's extensions.",
)
@reading_options
@config_option
def command(
    raster: str, query: str, tables: dict[str, str], as_csv: bool, as_json: bool,
    output: str | None, overwrite: bool, band: int, allow_files: bool,
    encoding: str | None, lossy: bool,
) -> None:  # fmt: skip
    """Print the rows that QUERY returns, in DuckDB's SQL.

    In QUERY, RASTER's table with its sidecars is called rat, and its column row has the row
    numbers. RASTER may also be a sidecar. QUERY only reads, and can reach no files.
    """
    exclusive(csv=as_csv, json=as_json, output=output is not None)
    if overwrite and output is None:
        raise click.UsageError("--overwrite needs --output")
    from gdalbridge.sql.query import Database, needed
    from gdalbridge.sql.result import csv_text, json_text, table_text
    from gdalbridge.table import open_table
    from gdalbridge.text_table import terminal_width

    needed()
    with ExitStack() as stack:
        opened: dict[str, Any] = {
            "rat": stack.enter_context(
                open_table(raster, band, update=False, encoding=encoding, lossy=lossy)
            )
        }
        for name, place in tables.items():
            opened[name] = _opened(stack, place, encoding, lossy)
        database = stack.enter_context(Database(opened, allow_files=allow_files))
        found = database.relation(query)
        if output is not None:
            from gdalbridge.exchange.result_files import write_result

            write_result(database, found, output, overwrite=overwrite)
        elif as_csv or as_json:
            text, put = (csv_text, print_csv) if as_csv else (json_text, print_json_text)
            for piece in text(database, found):
                put(piece)
        else:
            click.echo(_printable(table_text(database, found, terminal_width())))


def _opened(stack: ExitStack, place: str, encoding: str | None, lossy: bool) -> Any:
    """Open a further table."""
    from gdalbridge.errors import BridgeError
    from gdalbridge.exchange.arrow_files import SUFFIXES
    from gdalbridge.table import open_table
    from ratzarr.stores import parse

    kind = SUFFIXES.get(Path(place).suffix.lower())
    if kind is None:
        return stack.enter_context(open_table(place, update=False, encoding=encoding, lossy=lossy))
    if kind == "csv" or parse(place).kind != "local":
        from gdalbridge.exchange.join_data import read_table

        # Arrow's dataset would guess the types of CSV from its first rows, and round large integers.
        return read_table(place)
    import pyarrow as pa
    from pyarrow import dataset

    try:
        return dataset.dataset(place, format=kind)
    except FileNotFoundError:
        raise BridgeError(f"{place} can't be read: the file does not exist") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise BridgeError(f"{place} can't be read as {kind}: {error}") from error


def _printable(text: str) -> str:
    """Replace characters that the output's encoding lacks."""
    encoding = (sys.stdout and sys.stdout.encoding) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
