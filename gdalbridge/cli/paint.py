"""``gdalbridge paint``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    creation_options,
    examples,
    number,
    reading_options,
    report_options,
    unicode_text,
    where_option,
)


@examples(
    "gdalbridge paint seg.tif ndvi -o ndvi.tif",
    'gdalbridge paint seg.tif class -o class.tif --where "Histogram > 100" --png class.png',
    "gdalbridge paint seg.tif ndvi -o view.tif --of COG --cmap RdYlGn --limits 0 0.9",
    "gdalbridge paint seg.tif --colors -o rgb.tif",
)
@click.command("paint", cls=Command)
@click.argument("raster")
@click.argument("column", required=False)
@click.option("-o", "--out", callback=unicode_text, help="The raster to write, local or on S3.")
@click.option("--png", callback=unicode_text, help="A picture with a legend to write.")
@click.option(
    "--colors",
    is_flag=True,
    help="The table's colours (columns of usage Red, Green, Blue) instead of a column.",
)
@band_option
@where_option
@click.option(
    "--nodata", callback=number, metavar="NUMBER", help="Value of pixels without a value."
)
@click.option("--window", type=int, nargs=4, metavar="X Y WIDTH HEIGHT", help="Only these pixels.")
@click.option("--cmap", help="Colour map of matplotlib.")
@click.option(
    "--limits", type=float, nargs=2, metavar="LOW HIGH",
    help="Values that get its first and its last colour; by default percentiles 2 and 98.",
)  # fmt: skip
@creation_options
@click.option("--overwrite", is_flag=True, help="Replace existing output.")
@click.option("--threads", type=click.IntRange(1), help="Threads that read and paint.")
@reading_options
@report_options
def command(
    raster: str, column: str | None, out: str | None, png: str | None, colors: bool,
    nodata: float | None, cmap: str | None, limits: tuple[float, float] | None, format: str | None,  # noqa: A002 - GDAL's own word
    options: tuple[str, ...], **common: Any,
) -> Any:  # fmt: skip
    """Write a raster or a picture with the values of COLUMN in place of RASTER's pixel values.

    Text becomes a class raster with an attribute table.
    """
    if out is None and png is None:
        raise click.UsageError("name an output: --out for a raster, --png for a picture")
    if (column is None) != colors:
        raise click.UsageError("name a column, or use --colors for the table's colours")
    if png is not None and not png.lower().endswith(".png"):
        raise click.UsageError(f"--png is the name of a picture, such as map.png: got {png!r}")
    from gdalbridge.output import Output
    from gdalbridge.rasters.paint import paint
    from gdalbridge.rasters.shades import Shades
    from gdalbridge.sidecars.raster_files import BESIDE

    found = []
    if out is not None and png is not None:
        # Nothing is written if the second of two outputs can't be.
        Output(png, common["overwrite"], endings=BESIDE).check(raster)
        if limits is not None:
            Shades(cmap or "viridis", limits)
    if out is not None:
        is_picture = format is None and out.lower().endswith(".png")
        given = limits if cmap is not None or is_picture else None
        if limits is not None and given is None and png is None:
            raise click.UsageError("--limits are the ends of a colour map: add --cmap")
        found.append(
            paint(
                raster, column, out, nodata=nodata, cmap=cmap, limits=given,
                format=format, options=options, **common,
            )
        )  # fmt: skip
    if png is not None:
        found.append(paint(raster, column, png, cmap=cmap, limits=limits, **common))
    return found if len(found) > 1 else found[0]
