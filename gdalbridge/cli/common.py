"""Options shared by the commands, and output of results as text, JSON or CSV."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import click

from gdalbridge.cli.exits import in_words

__all__ = [
    "Command",
    "accept_stale_option",
    "band_option",
    "cast_option",
    "checkpoint_option",
    "columns_option",
    "config_option",
    "creation_options",
    "csv_option",
    "dry_run_option",
    "examples",
    "exclusive",
    "json_option",
    "named_values",
    "number",
    "print_csv",
    "print_json",
    "print_json_text",
    "quiet_option",
    "reading_options",
    "report_options",
    "resume_run_option",
    "say",
    "travel_options",
    "unicode_text",
    "where_option",
]


def unicode_text(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse an option's text with other than Unicode characters, which GDAL does not take."""
    for text in value if isinstance(value, tuple) else (value or "",):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.BadParameter(f"{text!a} is not Unicode text") from None
    return value


def number(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return an option's number; integers of 64 bits are not rounded."""
    if value is None:
        return None
    with suppress(ValueError):
        whole = int(value)
        if abs(whole) < 2**64:
            return whole
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"expected a number, got {value!r}") from None


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


def named_values(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Return the values of a repeated option by their names, as its metavar says."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = value.rpartition("=")
        if not (name and equals and text):
            raise click.BadParameter(f"expected {param.metavar}, got {value!r}")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice")
        found[name] = text
    return found


def _configure(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    for value in unicode_text(ctx, param, values):
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"expected NAME=VALUE, got {name!r}")
        from gdalbridge.gdalio.config_options import set_option

        set_option(name.strip(), text)


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds several options, in this order."""

    def add(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return add


accept_stale_option = click.option(
    "--accept-stale",
    is_flag=True,
    help="Continue even if the raster has changed since the table was made.",
)
band_option = click.option(
    "--band", type=click.IntRange(1), default=1, show_default=True, help="Band of a raster."
)
cast_option = click.option(
    "--cast",
    multiple=True,
    callback=named_values,
    metavar="COLUMN=TYPE",
    help="GDAL type of a column: Integer, Real, String, ... Values must still be equal.",
)
columns_option = click.option(
    "--column", "columns", multiple=True, help="Only this column. Can be repeated."
)
config_option = click.option(
    "--config",
    multiple=True,
    callback=_configure,
    expose_value=False,
    is_eager=True,
    metavar="NAME=VALUE",
    help="GDAL configuration option; the AWS ones apply to tables too. Can be repeated.",
)
csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check everything, and change nothing."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
where_option = click.option(
    "--where",
    callback=unicode_text,
    metavar="EXPRESSION",
    help="Only rows for which this SQL expression is true; its syntax is that of calc.",
)

creation_options = _together(
    click.option(
        "--of", "format", callback=unicode_text, help="GDAL's name of the output format."
    ),
    click.option(
        "--co",
        "options",
        multiple=True,
        callback=unicode_text,
        metavar="NAME=VALUE",
        help="Creation option.",
    ),
)
"""Options for writing a raster: ``format`` and ``options``."""

reading_options = _together(
    click.option(
        "--encoding",
        help="Encoding of text and names in a raster's own table, e.g. cp1252. By default UTF-8, "
        "or as its .vat.dbf declares.",
    ),
    click.option(
        "--lossy",
        is_flag=True,
        help="Read a raster's own table even if GDAL lost or altered values of it.",
    ),
)
"""Options for reading a raster's own table: ``encoding`` and ``lossy``."""


def report_options(function: Callable[..., Any]) -> Any:
    """Add ``--config``, ``--json`` and ``--quiet`` to a command that returns a report.

    The command gets ``progress`` in place of the last two. Its report is printed.
    """

    @_together(config_option, json_option, quiet_option)
    @wraps(function)
    def run(*, as_json: bool, quiet: bool, **options: Any) -> None:
        found = function(progress=not (quiet or as_json), **options)
        say(found, as_json=as_json, quiet=quiet)

    return run


def travel_options(function: Callable[..., Any]) -> Any:
    """Add the arguments and options of a command that copies or moves SOURCE to TARGET."""

    @_together(
        click.argument("source"),
        click.argument("target"),
        click.option(
            "--overwrite",
            is_flag=True,
            help="First remove the raster at the target, with its files and tables.",
        ),
        click.option(
            "--resume",
            is_flag=True,
            help="Continue an interrupted run: skip files that exist and are equal.",
        ),
        dry_run_option,
        report_options,
    )
    @wraps(function)
    def run(*, overwrite: bool, resume: bool, **options: Any) -> Any:
        exclusive(overwrite=overwrite, resume=resume)
        return function(overwrite=overwrite, resume=resume, **options)

    return run


def exclusive(**given: Any) -> None:
    """Raise a usage error if more than one of these options is given."""
    named = [f"--{name}" for name, value in given.items() if value]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} can't be combined")


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


def say(found: Any, *, as_json: bool, as_csv: bool = False, quiet: bool = False) -> None:
    """Print a report, or a list of reports, as text, JSON or CSV."""
    reports = found if isinstance(found, list) else [found]
    if as_json:
        data = [report.as_dict() for report in reports]
        print_json(data if isinstance(found, list) else data[0])
    elif as_csv:
        print_csv(found.as_csv())
    elif not quiet:
        for report in reports:
            click.echo(str(report))


def print_csv(text: str) -> None:
    """Print CSV in UTF-8, as CSV files are.

    Of text, click would leave out a terminal's control sequences, and the output's encoding may
    lack characters.
    """
    click.echo(text.encode(), nl=False)


def print_json_text(text: str) -> None:
    """Print JSON, with escapes where the output's encoding lacks characters."""
    try:
        text.encode((sys.stdout and sys.stdout.encoding) or "utf-8")
    except UnicodeEncodeError:
        text = "".join(one if one.isascii() else json.dumps(one)[1:-1] for one in text)
    click.echo(text, nl=False)


def print_json(value: Any) -> None:
    """Print an object as JSON, with keys in a fixed order."""
    print_json_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
