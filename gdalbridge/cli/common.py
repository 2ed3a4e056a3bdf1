"""Options shared by the commands, and output of results as text or JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from gdalbridge.cli.exits import in_words, say_note
from gdalbridge.text_table import terminal_width

__all__ = [
    "Command",
    "accept_stale_option",
    "cast_option",
    "checkpoint_option",
    "columns_option",
    "config_option",
    "dry_run_option",
    "encoding_option",
    "examples",
    "json_option",
    "lossy_option",
    "overwrite_target_option",
    "print_json",
    "quiet_option",
    "resume_option",
    "resume_run_option",
    "say",
    "say_note",
    "terminal_width",
    "unicode_text",
]


def unicode_text(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse an option's text with other than Unicode characters, which GDAL does not take."""
    for text in value if isinstance(value, tuple) else (value or "",):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.BadParameter(f"{text!a} is not Unicode text") from None
    return value


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")

encoding_option = click.option(
    "--encoding",
    help="Encoding of text and names in a raster's own table, e.g. cp1252. By default UTF-8, "
    "or as its .vat.dbf declares.",
)
lossy_option = click.option(
    "--lossy",
    is_flag=True,
    help="Read a raster's own table even if GDAL lost or altered values of it.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything, and change nothing."
)
overwrite_target_option = click.option(
    "--overwrite",
    is_flag=True,
    help="First remove the raster at the target, with its files and tables.",
)
resume_option = click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run: skip files that exist and are equal.",
)

resume_run_option = click.option(
    "--resume", is_flag=True, help="Continue an interrupted run from its last checkpoint."
)
checkpoint_option = click.option(
    "--checkpoint",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between checkpoints; 0 for none.",
)


def _casts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    casts = {}
    for value in values:
        column, equals, kind = value.rpartition("=")
        if not equals or not column:
            raise click.BadParameter(f"expected COLUMN=TYPE, got {value!r}")
        casts[column] = kind
    return casts


cast_option = click.option(
    "--cast",
    "cast",
    multiple=True,
    callback=_casts,
    metavar="COLUMN=TYPE",
    help="GDAL type of a column: Integer, Real, String, ... Values must still be equal.",
)
accept_stale_option = click.option(
    "--accept-stale",
    is_flag=True,
    help="Continue even if the raster has changed since the table was made.",
)
columns_option = click.option(
    "--column", "columns", multiple=True, help="Only this column. Can be repeated."
)


def _configure(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    for value in unicode_text(ctx, param, values):
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"expected NAME=VALUE, got {name!r}")
        from gdalbridge.gdalio.config_options import set_option

        set_option(name.strip(), text)


config_option = click.option(
    "--config",
    multiple=True,
    callback=_configure,
    expose_value=False,
    is_eager=True,
    metavar="NAME=VALUE",
    help="GDAL configuration option; the AWS ones apply to tables too. Can be repeated.",
)


class Command(click.Command):
    """A command whose errors and warnings are printed as words; see :mod:`gdalbridge.cli.exits`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with in_words():
            return super().invoke(ctx)


def examples(*lines: str) -> Callable[[Any], Any]:
    """Add examples to a command's --help."""

    def add(command: click.Command) -> click.Command:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
        return command

    return add


def say(found: Any, *, as_json: bool, quiet: bool = False) -> None:
    """Print a report, or a list of reports, as text or JSON."""
    reports = found if isinstance(found, list) else [found]
    if as_json:
        data = [report.as_dict() for report in reports]
        print_json(data if isinstance(found, list) else data[0])
    elif not quiet:
        for report in reports:
            click.echo(str(report))


def print_json(value: Any) -> None:
    """Print an object as JSON, with keys in a fixed order."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if sys.stdout is not None:
        try:
            text.encode(sys.stdout.encoding or "utf-8")
        except UnicodeEncodeError:
            text = json.dumps(value, indent=2)
    click.echo(text)
