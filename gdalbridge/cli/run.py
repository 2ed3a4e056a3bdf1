"""``gdalbridge run``."""

import sys

import click

from gdalbridge.cli.common import examples, reading_options
from gdalbridge.cli.exits import InterruptWatch, in_words, show_own_error


@examples(
    "gdalbridge run add_columns.py seg.tif",
    "gdalbridge run --read-only tuiview seg.tif",
    "gdalbridge run -m package.module --its-own-option",
)
@click.command("run", context_settings={"ignore_unknown_options": True,
                                        "allow_interspersed_args": False})  # fmt: skip
@click.option("-m", "module", is_flag=True, help="PROGRAM is a module.")
@click.option(
    "--read-only",
    is_flag=True,
    help="Show sidecars, but do not write to them: GDAL handles changes itself.",
)
@click.option(
    "--override", is_flag=True, help="Write changes of the raster's own columns to the sidecar."
)
@reading_options
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    module: bool, read_only: bool, override: bool, encoding: str | None, lossy: bool,
    program: str, arguments: tuple[str, ...],
) -> None:  # fmt: skip
    """Run a Python PROGRAM whose rasters' tables include the columns of their sidecars.

    PROGRAM is a script, an installed command, or (-m) a module. Its changes are written to the
    sidecars. This affects only code that uses GDAL's Python bindings in this process, not child
    processes or C++ programs.
    """
    with in_words():
        from gdalbridge.attached_rat.enable import enable
        from gdalbridge.attached_rat.open_sidecars import flush_all
        from gdalbridge.attached_rat.run_script import prepared

        run = prepared(program, arguments, module=module)
        enable(update=not read_only, override=override, encoding=encoding, lossy=lossy)
        watch = click.get_current_context().find_object(InterruptWatch)
        if watch is not None:
            # The program may handle Ctrl-C itself, and take its time.
            watch.close()
    try:
        run()
    except Exception as error:
        show_own_error(error)
        sys.exit(1)
    finally:
        with in_words():
            flush_all()
