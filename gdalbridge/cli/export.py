"""``gdalbridge export``."""

from typing import Any

import click
from click.core import ParameterSource

from gdalbridge.cli.common import (
    Command,
    accept_stale_option,
    cast_option,
    columns_option,
    config_option,
    encoding_option,
    examples,
    json_option,
    lossy_option,
    print_json,
    quiet_option,
    say_note,
    unicode_text,
)


def _renamed(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    found = {}
    for value in values:
        old, equals, new = value.rpartition("=")
        if not equals or not old or not new:
            raise click.BadParameter(f"expected OLD=NEW, got {value!r}")
        found[old] = new
    return found


@examples(
    "gdalbridge export seg.tif seg.parquet",
    "gdalbridge export seg.tif water.csv --where \"class = 'water'\" --column area",
    "gdalbridge export seg.tif seg.tif.vat.dbf --where 'Histogram > 0'",
    "gdalbridge export seg.tif.rat.zarr out.tif",
    "gdalbridge export s3://bucket/seg.tif.rat.zarr seg.kea --column area",
    "gdalbridge export seg.tif out.tif --cast id=Real --overwrite",
)
@click.command("export", cls=Command)
@click.argument("table")
@click.argument("output")
@click.option(
    "--band", type=click.IntRange(1), default=1, show_default=True, help="Band of the rasters."
)
@click.option("--name", help="Name of a further table, if TABLE is a raster.")
@columns_option
@click.option("--overwrite", is_flag=True, help="Replace an existing file, or existing columns.")
@click.option(
    "--where",
    callback=unicode_text,
    metavar="EXPRESSION",
    help="Only rows for which this is true, an expression as in calc. For files.",
)
@click.option(
    "--rename",
    multiple=True,
    callback=_renamed,
    metavar="OLD=NEW",
    help="Another name of a column in the file. Can be repeated.",
)
@click.option("--row/--no-row", default=None, help="Write the row numbers to a file. The default.")
@encoding_option
@cast_option
@click.option("--block-rows", type=click.IntRange(1), help="Rows per block. For rasters.")
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Compare every value with the raster, read again; or none. By default every value if "
    "the format may change some, and a sample if it keeps all (.img, .kea).",
)
@lossy_option
@click.option("--strict", is_flag=True, help="Refuse every loss, and leave OUTPUT unchanged.")
@accept_stale_option
@config_option
@json_option
@quiet_option
def command(
    table: str,
    output: str,
    band: int,
    name: str | None,
    columns: tuple[str, ...],
    overwrite: bool,
    strict: bool,
    lossy: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write TABLE to a file, or its sidecar into a raster's own table, by the suffix of OUTPUT.

    TABLE is a raster or a sidecar. For .parquet, .csv, .arrow, .feather, .gpkg, .dbf and .vat.dbf,
    the file has the raster's own columns and its sidecars'. Any other OUTPUT is a raster, into
    whose table the columns of TABLE's sidecar are copied.
    """
    from gdalbridge.exchange.export import table_format

    common: dict[str, Any] = {
        "band": band, "columns": columns or None, "overwrite": overwrite, "strict": strict,
        "lossy": lossy, "progress": not (quiet or as_json),
    }  # fmt: skip
    kind = table_format(output)
    to_file = kind is not None and not (kind == "gpkg" and _has_raster(output))
    _refuse(_FOR_RASTERS if to_file else _FOR_FILES, output)
    if to_file:
        report = _to_file(table, output, name, options, common)
    else:
        report = _to_raster(table, output, name, options, common)
    if as_json:
        print_json(report.as_dict())
    elif not quiet:
        for note in report.notes:
            say_note(note)
        click.echo(str(report))


_FOR_FILES = {
    "where": "--where", "rename": "--rename", "row": "--row or --no-row", "encoding": "--encoding",
}  # fmt: skip
_FOR_RASTERS = {
    "cast": "--cast", "block_rows": "--block-rows", "verify": "--verify or --no-verify",
    "accept_stale": "--accept-stale",
}  # fmt: skip


def _refuse(names: dict[str, str], output: str) -> None:
    context = click.get_current_context()
    for name, shown in names.items():
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{shown} does not apply to {output}")


def _has_raster(path: str) -> bool:
    from gdalbridge.gdalio.vector_layer import is_raster

    return is_raster(path)


def _to_file(
    table: str, output: str, name: str | None, options: dict[str, Any], common: dict[str, Any]
) -> Any:
    from gdalbridge.exchange.export import export_table

    return export_table(
        table,
        output,
        names=None if name is None else [name],
        where=options["where"],
        rename=options["rename"],
        row=options["row"] is not False,
        encoding=options["encoding"],
        **common,
    )


def _to_raster(
    table: str, output: str, name: str | None, options: dict[str, Any], common: dict[str, Any]
) -> Any:
    from gdalbridge.copying.to_raster import copy_to_raster
    from gdalbridge.errors import RasterNotFoundError
    from gdalbridge.exchange.export import SUFFIXES
    from gdalbridge.sidecars.naming import is_sidecar, sidecar_path

    try:
        return copy_to_raster(
            table if is_sidecar(table) else sidecar_path(table, common["band"], name),
            output,
            cast=options["cast"] or None,
            block_rows=options["block_rows"],
            verify=options["verify"],
            accept_stale=options["accept_stale"],
            **common,
        )
    except RasterNotFoundError as error:
        error.add_note(
            f"OUTPUT is an existing raster, or a new file that ends in {', '.join(SUFFIXES)}"
        )
        raise
