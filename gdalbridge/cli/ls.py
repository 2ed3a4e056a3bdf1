"""``gdalbridge ls``."""

import sys

import click

from gdalbridge.cli.common import Command, config_option, examples, json_option, print_json


@examples(
    "gdalbridge ls seg.tif",
    "gdalbridge ls s3://bucket/    # all tables of the bucket",
    "gdalbridge ls . --json",
)
@click.command("ls", cls=Command)
@click.argument("raster_or_dir")
@config_option
@json_option
def command(raster_or_dir: str, as_json: bool) -> None:
    """List the tables of a raster, or those in a directory and its subdirectories.

    If a table can't be read, it is listed with the reason, and the exit code is 1.
    """
    from gdalbridge.copying.report import size_text
    from gdalbridge.sidecars.listing import list_tables
    from gdalbridge.text_table import text_table

    found = list_tables(raster_or_dir)
    if as_json:
        print_json([one.as_dict() for one in found])
    elif found:
        names = ("band", "name", "rows", "columns", "size", "complete")
        rows = [
            (str(one.band), one.name or "", str(one.rows), str(one.columns),
             "?" if one.bytes is None else size_text(one.bytes),
             "yes" if one.complete else "no")
            for one in found
        ]  # fmt: skip
        # A path is useful only in full.
        paths = ["path", "----", *(one.path for one in found)]
        lines = text_table(names, rows).splitlines()
        for line, path in zip(lines, paths, strict=True):
            click.echo(f"{line.ljust(max(map(len, lines)))}  {path}")
    else:
        # For users, not for programs that read the list.
        click.echo(f"gdalbridge: {raster_or_dir}: no tables", err=True)
    for one in found:
        if one.problem:
            click.echo(f"gdalbridge: {one.path}: {one.problem}", err=True)
        if one.changes:
            words = "; ".join(one.changes)
            click.echo(
                f"gdalbridge: {one.path} may not fit its raster any more: {words}", err=True
            )
    if any(one.problem for one in found):
        sys.exit(1)
