"""``gdalbridge zonal``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    checkpoint_option,
    examples,
    number,
    reading_options,
    report_options,
    resume_run_option,
)

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def _bands(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    found: dict[int, str] = {}
    for value in values:
        number, _, name = value.partition(":")
        if not number.isascii() or not number.isdecimal() or int(number) < 1:
            raise click.BadParameter(f"expected NUMBER or NUMBER:NAME, got {value!r}")
        if int(number) in found:
            raise click.BadParameter(f"band {number} is given twice")
        found[int(number)] = name
    return found or None


def _bytes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    text = value.upper().removesuffix("B").removesuffix("I")
    unit = text[-1:] if text[-1:] in "KMG" else ""
    digits = text.removesuffix(unit) if unit else text
    try:
        return int(float(digits) * UNITS[unit])
    except (ValueError, OverflowError):
        raise click.BadParameter(f"expected bytes, such as 500M or 2G: got {value!r}") from None


@examples(
    "gdalbridge zonal seg.tif image.tif",
    "gdalbridge zonal seg.tif image.tif --band 1:red --band 2:nir --stat mean,stddev,p90",
    "gdalbridge zonal seg.tif may.tif june.tif --stat mean,count",
    "gdalbridge zonal seg.tif landcover.tif --band 1:lc --stat fraction,mode",
    "gdalbridge zonal seg.tif image.tif --weights observations.tif --stat mean,weight",
    "gdalbridge zonal s3://bucket/seg.tif dem.tif --resampling bilinear --stat mean",
)
@click.command("zonal", cls=Command)
@click.argument("segments")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--band",
    "bands",
    multiple=True,
    callback=_bands,
    metavar="NUMBER[:NAME]",
    help="A band of the images, and the name that its columns begin with. Can be repeated. By "
    "default all bands.",
)
@click.option(
    "--stat",
    "stats",
    multiple=True,
    default=("count,mean",),
    show_default=True,
    help="Statistics: count, sum, mean, stddev, variance, min, max, range, median, mode, fraction, "
    "percentiles such as p10, and with --weights weight, their sum.",
)
@click.option("--prefix", help="Begin the names of the columns with this.")
@click.option(
    "--segments-band",
    "band",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Band of SEGMENTS.",
)
@click.option("--name", help="Write the columns to a further table of this name.")
@click.option(
    "--nodata",
    callback=number,
    metavar="NUMBER",
    help="A value of the images that doesn't count.",
)
@click.option(
    "--weights",
    metavar="RASTER",
    help="A raster that says how often each pixel counts, such as a number of observations.",
)
@click.option(
    "--weights-band",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Band of the weights.",
)
@click.option("--resampling", help="Resample images of another grid: near, bilinear, average, ...")
@click.option(
    "--memory",
    default="2G",
    show_default=True,
    callback=_bytes,
    help="Memory for the statistics. Images are read several times if they need more.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads that read and compute.")
@click.option("--overwrite", is_flag=True, help="Replace existing columns.")
@resume_run_option
@checkpoint_option
@reading_options
@report_options
def command(
    segments: str, images: tuple[str, ...], stats: tuple[str, ...], weights: str | None,
    weights_band: int, **options: Any,
) -> Any:  # fmt: skip
    """Compute statistics of IMAGES for each row of SEGMENTS' table, and write them to its sidecar.

    The pixels of SEGMENTS choose the rows. Images have the same grid, or are resampled to it. The
    names of the columns begin with the band's description; without one, with the file's name for an
    image of one band (dem_mean), and with band1, band2, ... for others.

    Medians, percentiles, modes and fractions are computed from sorted pixels. Pixels that exceed
    --memory go to a temporary directory (TMPDIR): up to 45 bytes for each pixel and band.
    """
    from gdalbridge.rasters.zonal import zonal

    names = [one.strip() for text in stats for one in text.split(",") if one.strip()]
    weighted = None if weights is None else (weights, weights_band)
    return zonal(segments, list(images), stats=names, weights=weighted, **options)
