"""``gdalbridge mv``."""

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
    "gdalbridge mv seg.tif segments.tif",
    "gdalbridge mv seg.tif s3://bucket/dir/",
    "gdalbridge mv s3://bucket/seg.tif s3://bucket/old/ --overwrite",
)
@click.command("mv")
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
    """Move the raster SOURCE with its own files and all of its tables to TARGET.

    Within one file system they are renamed; elsewhere copied, compared, and then removed from
    the source, if nobody has changed it meanwhile.
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite removes what --resume would go on with: not both")
    with in_words():
        from ..travel import move_raster

        report = move_raster(
            source,
            target,
            overwrite=overwrite,
            resume=resume,
            dry_run=dry_run,
            progress=not (quiet or as_json),
        )
        say(report, as_json=as_json, quiet=quiet)
