"""The command ``gdalbridge``, in the style of the ``gdal`` command.

Each command has a small file: it parses arguments, calls the library, and prints the result.
Inputs come first and the output last. An existing output is refused without ``--overwrite`` or
``--append``. :mod:`gdalbridge.cli.exits` has the exit codes.
"""

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from gdalbridge.cli.exits import in_words

__all__ = ["main"]

COMMANDS = {
    "bake": "Copy a raster with an ordinary table, for QGIS and ArcGIS.",
    "build": "Make a raster's table from its pixels.",
    "calc": "Compute new columns from others, with an expression.",
    "check": "Check whole tables for damaged, missing and left-over data.",
    "copy": "Copy a raster's attribute table to a sidecar.",
    "cp": "Copy a raster with all of its tables.",
    "demo": "Demonstrate the whole round trip with a real raster.",
    "describe": "Print a line of statistics for each column.",
    "doctor": "Show the installation and the S3 settings in force.",
    "driver-path": "Print how QGIS, ogr2ogr and other programs read tables.",
    "export": "Write a table to Parquet, CSV, Arrow, GeoPackage or dBASE, or into a raster.",
    "head": "Print the first rows of a table.",
    "import": "Join the columns of a CSV, Parquet or Arrow file into a raster's table.",
    "info": "Describe a raster's table and its sidecars.",
    "ls": "List the tables of a raster, or of a directory.",
    "paint": "Write a raster with the values of a column, or a picture of it.",
    "mv": "Move a raster with all of its tables.",
    "plot": "Draw a column: a histogram, bars, classes or two columns.",
    "polygonize": "Write the outlines of segments, with their attributes.",
    "rm": "Remove a raster with all of its tables.",
    "run": "Run a Python program that sees sidecars in its rasters' tables.",
    "sample": "Print rows of the table under points.",
    "select": "Print the rows for which a condition is true, or write their pixels.",
    "sql": "Query a table with SQL.",
    "stats": "Print statistics of columns.",
    "summarize": "Print segments, pixels, area and means of each class.",
    "touch": "Accept that a raster has changed since its tables were made.",
    "zonal": "Compute statistics of images for each segment.",
}


class _Commands(click.Group):
    """Imports a command's module only when needed, so that --help does not wait for GDAL."""

    def main(self, args: Any = None, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]  # click overloads it by standalone_mode
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        # This wraps all of click, whose own output, such as --help, can fail as well.
        with in_words():
            try:
                sys.exit(super().main(args, standalone_mode=False, **extra))
            except click.ClickException as error:
                with suppress(OSError):
                    error.show()
                sys.exit(error.exit_code)
            except click.Abort:
                raise KeyboardInterrupt from None

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with in_words():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with in_words():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # Python has the word "import" for itself.
        module = {"import": "import_table"}.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = import_module(f".{module}", __name__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command has its own --help, with examples.",
)
@click.version_option(package_name="ratzarr", prog_name="gdalbridge")
def main() -> None:
    """Raster attribute tables beside their rasters, on local disk and S3."""
