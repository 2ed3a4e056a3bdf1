"""What the commands share: errors into words, results as text or JSON."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ratzarr import RatZarrError

from ..errors import BridgeError, LossWarning, StaleWarning

__all__ = [
    "cast_option",
    "columns_option",
    "config_option",
    "dry_run_option",
    "examples",
    "in_words",
    "json_option",
    "overwrite_target_option",
    "print_json",
    "quiet_option",
    "resume_option",
    "say",
]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Look at everything, and change nothing."
)
overwrite_target_option = click.option(
    "--overwrite",
    is_flag=True,
    help="Remove what is at the target first: the raster there with its files and tables.",
)
resume_option = click.option(
    "--resume", is_flag=True, help="Go on: pass over what is there already and equal."
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
    "casts",
    multiple=True,
    callback=_casts,
    metavar="COLUMN=TYPE",
    help="GDAL type of a column: Integer, Real, String, ... Values must still be equal.",
)
columns_option = click.option(
    "--column", "columns", multiple=True, help="Only this column; can be repeated."
)


def _configure(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"expected NAME=VALUE, got {name!r}")
        from ..gdalconfig import set_option

        set_option(name.strip(), text)


config_option = click.option(
    "--config",
    multiple=True,
    callback=_configure,
    expose_value=False,
    is_eager=True,
    metavar="NAME=VALUE",
    help="Configuration option of GDAL; the AWS ones count for tables too. Can be repeated.",
)


@contextmanager
def in_words() -> Iterator[None]:
    """Turn an error into one line on stderr and exit code 1, and Ctrl-C into 130."""
    try:
        with _warnings_shown():
            yield
    except (BridgeError, RatZarrError) as error:
        click.echo(f"gdalbridge: {error}{_notes(error)}", err=True)
        sys.exit(1)
    except KeyboardInterrupt as error:
        click.echo(f"gdalbridge: interrupted{_notes(error)}", err=True)
        sys.exit(130)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show each of this package's warnings once on stderr, without source lines; none with -q."""
    context = click.get_current_context(silent=True)
    quiet = bool(context is not None and context.params.get("quiet"))
    shown: set[str] = set()
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            text = str(message)
            if not issubclass(category, (LossWarning, StaleWarning)):
                show_others(message, category, *where, **more)
            elif not quiet and text not in shown:
                shown.add(text)
                click.echo(f"gdalbridge: warning: {text}", err=True)

        warnings.showwarning = show
        for category in (LossWarning, StaleWarning):
            warnings.simplefilter("always", category)
        yield


def _notes(error: BaseException) -> str:
    return "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))


def examples(*lines: str) -> Callable[[Any], Any]:
    """Add examples to a command's --help."""

    def add(command: click.Command) -> click.Command:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
        return command

    return add


def say(found: Any, *, as_json: bool, quiet: bool = False) -> None:
    """Print a report, or a list of them, each of which has ``as_dict`` and words of its own."""
    reports = found if isinstance(found, list) else [found]
    if as_json:
        data = [report.as_dict() for report in reports]
        print_json(data if isinstance(found, list) else data[0])
    elif not quiet:
        for report in reports:
            click.echo(str(report))


def print_json(value: Any) -> None:
    """Print JSON, for programs: one object, keys in a fixed order."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
