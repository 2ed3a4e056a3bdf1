"""``gdalbridge export``."""

from typing import Any

import click
from click.core import ParameterSource

from gdalbridge.cli.common import (
    Command,
    accept_stale_option,
    band_option,
    cast_option,
    columns_option,
    examples,
    named_values,
    reading_options,
    report_options,
    unicode_text,
)
from gdalbridge.cli.exits import say_note


@examples(
    "gdalbridge export seg.tif seg.parquet",
    "gdalbridge export seg.tif water.csv --where \"class = 'water'\" --column area",
    "gdalbridge export seg.tif seg.tif.vat.dbf    # for ArcGIS and QGIS",
    "gdalbridge export seg.tif.rat.zarr out.tif",
    "gdalbridge export s3://bucket/seg.tif.rat.zarr seg.kea --column area",
    "gdalbridge export seg.tif out.tif --cast id=Real --overwrite",
)
@click.command("export", cls=Command)
@click.argument("table")
@click.argument("output")
@band_option
@click.option("--name", help="Name of a further table, if TABLE is a raster.")
@columns_option
@click.option("--overwrite", is_flag=True, help="Replace an existing file, or existing columns.")
@click.option(
    "--where",
    callback=unicode_text,
    metavar="EXPRESSION",
    help="Only rows for which this SQL expression is true; its syntax is that of calc. For files.",
)
@click.option(
    "--rename",
    multiple=True,
    callback=named_values,
    metavar="OLD=NEW",
    help="Another name of a column in the file. Can be repeated.",
)
@click.option("--row/--no-row", default=None, help="Write the row numbers to a file. The default.")
@reading_options
@cast_option
@click.option("--block-rows", type=click.IntRange(1), help="Rows per block. For rasters.")
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Read the raster again and compare every value, or none. By default every value is "
    "compared if the format may change some, and a sample if it keeps all (.img, .kea).",
)
@click.option("--strict", is_flag=True, help="Refuse every loss, and leave OUTPUT unchanged.")
@accept_stale_option
@report_options
def command(
    table: str, output: str, band: int, name: str | None, columns: tuple[str, ...],
    overwrite: bool, strict: bool, lossy: bool, progress: bool, **options: Any,
) -> Any:  # fmt: skip
    """Write TABLE to a file, or its sidecar into a raster's own table, by the suffix of OUTPUT.

    TABLE is a raster or a sidecar. For .parquet, .csv, .arrow, .feather, .gpkg, .dbf and .vat.dbf,
    the file has the raster's own columns and its sidecars'. Any other OUTPUT is a raster, into
    whose table the columns of TABLE's sidecar are copied.
    """
    from gdalbridge.copying.to_raster import copy_to_raster
    from gdalbridge.errors import RasterNotFoundError
    from gdalbridge.exchange.export import SUFFIXES, export_table, table_format
    from gdalbridge.gdalio.vector_layer import is_raster
    from gdalbridge.sidecars.naming import is_sidecar, sidecar_path

    kind = table_format(output)
    to_file = kind is not None and not (kind == "gpkg" and is_raster(output))
    used, others = (FOR_FILES, FOR_RASTERS) if to_file else (FOR_RASTERS, FOR_FILES)
    context = click.get_current_context()
    for option, shown in others.items():
        if context.get_parameter_source(option) == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{shown} does not apply to {output}")
    report: Any
    given: dict[str, Any] = {option: options[option] for option in used} | {
        "band": band, "columns": columns or None, "overwrite": overwrite, "strict": strict,
        "lossy": lossy, "progress": progress,
    }  # fmt: skip
    if to_file:
        given["row"] = options["row"] is not False
        report = export_table(table, output, names=None if name is None else [name], **given)
    else:
        sidecar = table if is_sidecar(table) else sidecar_path(table, band, name)
        try:
            report = copy_to_raster(sidecar, output, **given)
        except RasterNotFoundError as error:
            error.add_note(
                f"OUTPUT is an existing raster, or a new file that ends in {', '.join(SUFFIXES)}"
            )
            raise
    if progress:
        for note in report.notes:
            say_note(note)
    return report


FOR_FILES = {
    "where": "--where", "rename": "--rename", "row": "--row or --no-row", "encoding": "--encoding",
}  # fmt: skip
FOR_RASTERS = {
    "cast": "--cast", "block_rows": "--block-rows", "verify": "--verify or --no-verify",
    "accept_stale": "--accept-stale",
}  # fmt: skip
