"""``gdalbridge cp``."""

import click

from .common import (
    config_option,
    dry_run_option,
    examples,
    in_words,
    json_option,
    overwrite_target_option,
    quiet_option,
    resume_option,
    say,
)


@examples(
    "gdalbridge cp seg.tif s3://bucket/dir/",
    "gdalbridge cp s3://bucket/seg.tif s3://other/seg-2026.tif",
    "gdalbridge cp /vsis3/bucket/seg.tif . --dry-run",
    "gdalbridge cp seg.tif s3://bucket/dir/ --resume    # after Ctrl-C, a crash, a full disk",
)
@click.command("cp")
@click.argument("source")
@click.argument("target")
@overwrite_target_option
@resume_option
@dry_run_option
@config_option
@json_option
@quiet_option
def command(
    source: str,
    target: str,
    overwrite: bool,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Copy the raster SOURCE with its own files and all of its tables to TARGET.

    TARGET is a raster's name or a directory (on S3 it ends in /). Tables go first and the
    raster last; everything is compared afterwards.
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite removes what --resume would go on with: not both")
    with in_words():
        from ..travel import copy_raster

        report = copy_raster(
            source,
            target,
            overwrite=overwrite,
            resume=resume,
            dry_run=dry_run,
            progress=not (quiet or as_json),
        )
        say(report, as_json=as_json, quiet=quiet)
