"""``gdalbridge export``."""

import click

from gdalbridge.cli.common import (
    Command,
    accept_stale_option,
    cast_option,
    config_option,
    examples,
    json_option,
    lossy_option,
    print_json,
    quiet_option,
    say_note,
)


@examples(
    "gdalbridge export seg.tif.rat.zarr out.tif",
    "gdalbridge export s3://bucket/seg.tif.rat.zarr seg.kea --column area",
    "gdalbridge export seg.tif out.tif --cast id=Real --overwrite",
)
@click.command("export", cls=Command)
@click.argument("sidecar")
@click.argument("raster")
@click.option(
    "--band", type=click.IntRange(1), default=1, show_default=True, help="Band of both rasters."
)
@click.option("--name", help="Name of a further table, if SIDECAR is a raster.")
@click.option("--column", "columns", multiple=True, help="Only this column. Can be repeated.")
@click.option("--overwrite", is_flag=True, help="Replace existing columns.")
@cast_option
@click.option("--block-rows", type=click.IntRange(1), help="Rows per block.")
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Compare every value with the raster, read again; or none. By default every value if "
    "the format may change some, and a sample if it keeps all (.img, .kea).",
)
@lossy_option
@click.option("--strict", is_flag=True, help="Refuse every loss, and leave RASTER unchanged.")
@accept_stale_option
@config_option
@json_option
@quiet_option
def command(
    sidecar: str,
    raster: str,
    band: int,
    name: str | None,
    columns: tuple[str, ...],
    overwrite: bool,
    cast: dict[str, str],
    block_rows: int | None,
    verify: bool | None,
    lossy: bool,
    strict: bool,
    accept_stale: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Copy the columns of SIDECAR (or of the sidecar beside a raster) into RASTER's table."""
    from gdalbridge.copying.to_raster import copy_to_raster
    from gdalbridge.sidecars.naming import is_sidecar, sidecar_path

    report = copy_to_raster(
        sidecar if is_sidecar(sidecar) else sidecar_path(sidecar, band, name),
        raster,
        band=band,
        columns=columns or None,
        overwrite=overwrite,
        cast=cast or None,
        block_rows=block_rows,
        verify=verify,
        lossy=lossy,
        strict=strict,
        accept_stale=accept_stale,
        progress=not (quiet or as_json),
    )
    if as_json:
        print_json(report.as_dict())
    elif not quiet:
        for note in report.notes:
            say_note(note)
        click.echo(str(report))
