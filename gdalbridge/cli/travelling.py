"""Shared parts of ``gdalbridge cp`` and ``gdalbridge mv``."""

from collections.abc import Callable
from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    config_option,
    dry_run_option,
    json_option,
    overwrite_target_option,
    quiet_option,
    resume_option,
    say,
)

__all__ = ["travel_command"]


def travel_command(name: str, call: Callable[..., Any], words: str) -> click.Command:
    """Return a command that copies or moves a raster from SOURCE to TARGET.

    Parameters
    ----------
    name : str
        Name of the command.
    call : callable
        Does the work: takes source, target, and the options.
    words : str
        Text for ``--help``.
    """

    @click.command(name, cls=Command, help=words)
    @click.argument("source")
    @click.argument("target")
    @overwrite_target_option
    @resume_option
    @dry_run_option
    @config_option
    @json_option
    @quiet_option
    def command(source: str, target: str, as_json: bool, quiet: bool, **options: bool) -> None:
        if options["overwrite"] and options["resume"]:
            raise click.UsageError(
                "--overwrite removes the files that --resume would keep: use only one of them"
            )
        report = call(source, target, progress=not (quiet or as_json), **options)
        say(report, as_json=as_json, quiet=quiet)

    return command
