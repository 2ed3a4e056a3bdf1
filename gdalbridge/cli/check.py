"""``gdalbridge check``."""

import sys

import click

from gdalbridge.cli.common import (
    Command,
    config_option,
    examples,
    json_option,
    print_json,
    quiet_option,
)
from ratzarr.maintenance import Finding


@examples(
    "gdalbridge check seg.tif",
    "gdalbridge check s3://bucket/seg.tif.rat.zarr --json",
    "gdalbridge check seg.tif.rat.zarr --repair --dry-run",
    "gdalbridge check seg.tif.rat.zarr --repair",
)
@click.command("check", cls=Command)
@click.argument("table", metavar="TABLE_OR_RASTER")
@click.option("--repair", is_flag=True, help="Remove leftovers, and complete safe operations.")
@click.option("--dry-run", is_flag=True, help="Change nothing; show what --repair would do.")
@config_option
@json_option
@quiet_option
def command(table: str, repair: bool, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Read a whole table, or all sidecars of a raster, and report damaged or missing data.

    The exit code is 1 if a problem remains unrepaired.
    """
    from gdalbridge.sidecars.check import check

    reports = check(table, repair=repair, dry_run=dry_run, progress=not (quiet or as_json))
    if as_json:
        print_json([report.as_dict() for report in reports])
    elif not quiet:
        for report in reports:
            for one in report.findings:
                click.echo(f"{one.kind}: {one}{_action(one, dry_run)}")
            click.echo(str(report))
    if any(report.wrong for report in reports):
        sys.exit(1)


def _action(finding: Finding, dry_run: bool) -> str:
    if finding.repair is None:
        return ""
    if finding.repaired:
        return f" [repaired: {finding.repair}]"
    return f" [{'would' if dry_run else '--repair would'} {finding.repair}]"
