"""``gdalbridge copy``."""

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
    "gdalbridge copy seg.tif",
    "gdalbridge copy /vsis3/bucket/seg.tif",
    "gdalbridge copy seg.tif s3://bucket/seg.tif.rat.zarr --column Histogram",
    "gdalbridge copy seg.kea --all-bands --overwrite",
    "gdalbridge copy seg.kea --all-bands --resume    # after Ctrl-C, a crash, a full disk",
)
@click.command("copy", cls=Command)
@click.argument("raster")
@click.argument("sidecar", required=False)
@click.option(
    "--band", type=click.IntRange(1), default=1, show_default=True, help="Band of RASTER."
)
@click.option(
    "--all-bands", is_flag=True, help="Copy every band that has a table, each to its own sidecar."
)
@click.option("--name", help="Name of a further table beside the band's first.")
@click.option("--column", "columns", multiple=True, help="Only this column. Can be repeated.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace existing columns; each stays readable until its replacement is complete.",
)
@click.option("--append", is_flag=True, help="Add columns to an existing sidecar.")
@click.option("--resume", is_flag=True, help="Continue an interrupted copy.")
@click.option("--chunk-rows", type=click.IntRange(1), help="Rows per chunk.")
@click.option("--block-rows", type=click.IntRange(1), help="Rows per block (whole chunks).")
@encoding_option
@lossy_option
@config_option
@json_option
@quiet_option
def command(
    raster: str,
    sidecar: str | None,
    band: int,
    all_bands: bool,
    name: str | None,
    columns: tuple[str, ...],
    overwrite: bool,
    append: bool,
    resume: bool,
    chunk_rows: int | None,
    block_rows: int | None,
    encoding: str | None,
    lossy: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Copy the attribute table of RASTER to a sidecar, by default the one beside it."""
    if all_bands and sidecar is not None:
        raise click.UsageError("--all-bands writes one sidecar per band: SIDECAR can't be given")
    from gdalbridge.copying.to_sidecar import copy_to_sidecar
    from gdalbridge.gdalio.rat_reader import bands_with_table
    from gdalbridge.gdalio.read_options import ReadOptions

    reading = ReadOptions(encoding, lossy)
    reports = [
        copy_to_sidecar(
            raster,
            sidecar,
            band=number,
            name=name,
            columns=columns or None,
            overwrite=overwrite,
            append=append,
            resume=resume,
            chunk_rows=chunk_rows,
            block_rows=block_rows,
            encoding=encoding,
            lossy=lossy,
            progress=not (quiet or as_json),
        )
        for number in (bands_with_table(raster, options=reading) if all_bands else [band])
    ]
    if as_json:
        print_json([report.as_dict() for report in reports])
    elif not quiet:
        for report in reports:
            click.echo(str(report))
