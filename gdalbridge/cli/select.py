"""``gdalbridge select``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    config_option,
    examples,
    json_option,
    print_json,
    quiet_option,
    reading_options,
    unicode_text,
)

BATCH = 100_000


@examples(
    "gdalbridge select seg.tif \"ndvi between 0.6 and 1 and class = 'forest'\"",
    'gdalbridge select seg.tif "area > 1000" --count',
    'gdalbridge select seg.tif "area > 1000" --mask large.tif',
)
@click.command("select", cls=Command)
@click.argument("raster")
@click.argument("where", callback=unicode_text)
@click.option("--count", "only_count", is_flag=True, help="Print only the number of rows.")
@click.option(
    "--mask",
    metavar="OUT.TIF",
    help="Write the pixels of the rows: 1 for selected ones, 0 for all others.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing mask.")
@band_option
@click.option("--threads", type=click.IntRange(1), help="Threads that read pixels.")
@reading_options
@config_option
@json_option
@quiet_option
def command(
    raster: str, where: str, only_count: bool, mask: str | None, as_json: bool, quiet: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Print the row numbers of RASTER's table for which WHERE is true.

    WHERE is an SQL expression as in calc. With --mask, only the number of these rows is printed.
    """
    from gdalbridge.rasters.select import select

    found = select(
        raster, where, mask=mask, progress=mask is not None and not (quiet or as_json), **options
    )
    if as_json:
        rows = {} if only_count else {"row_numbers": found.tolist()}
        print_json({"raster": raster, "where": where, "rows": len(found), "mask": mask} | rows)
    elif quiet:
        return
    elif only_count:
        click.echo(len(found))
    elif mask is not None:
        click.echo(f"{mask}: the pixels of {len(found)} rows")
    else:
        for first in range(0, len(found), BATCH):
            click.echo("\n".join(map(str, found[first : first + BATCH].tolist())))
