"""What the commands share: errors into words, results as text or JSON."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ratzarr import RatZarrError

from ..errors import BridgeError

__all__ = ["config_option", "examples", "in_words", "json_option", "print_json", "quiet_option"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")


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
        yield
    except (BridgeError, RatZarrError) as error:
        click.echo(f"gdalbridge: {error}{_notes(error)}", err=True)
        sys.exit(1)
    except KeyboardInterrupt as error:
        click.echo(f"gdalbridge: interrupted{_notes(error)}", err=True)
        sys.exit(130)


def _notes(error: BaseException) -> str:
    return "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))


def examples(*lines: str) -> Callable[[Any], Any]:
    """Add examples to a command's --help."""

    def add(command: click.Command) -> click.Command:
        command.epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
        return command

    return add


def print_json(value: Any) -> None:
    """Print JSON, for programs: one object, keys in a fixed order."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
