"""A Python program run as it would be by itself, with attached tables handed out."""

import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata, util
from pathlib import Path

from gdalbridge.errors import ProgramNotFoundError

__all__ = ["prepared"]


def prepared(
    program: str, arguments: Sequence[str], *, module: bool = False
) -> Callable[[], object]:
    """Return what runs a program in this process, until it ends or exits.

    Parameters
    ----------
    program : str
        The path of a Python script; the name of an installed command that is written in
        Python; or of a module, as after ``python -m``.
    arguments : sequence of str
        What it finds in ``sys.argv[1:]``.
    module : bool
        Whether it is a module.

    Raises
    ------
    ProgramNotFoundError
        Where there is no such program, or it is not one of Python's.
    """
    if module:
        # As python -m does: what lies in the working directory goes first.
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = [program, *arguments]
        try:
            found_module = util.find_spec(program)
        except ModuleNotFoundError as error:
            if not f"{program}.".startswith(f"{error.name}."):
                raise
            found_module = None
        if found_module is None:
            raise ProgramNotFoundError(f"there is no module {program} here")
        return partial(runpy.run_module, program, run_name="__main__", alter_sys=True)
    if Path(program).is_file():
        return _file(Path(program), arguments)
    where = shutil.which(program)
    if (found := _entry_point(program)) is not None:
        sys.argv = [where or program, *arguments]
        return lambda: sys.exit(found.load()())
    if where is None:
        raise ProgramNotFoundError(
            f"{program} is neither a file nor a command that is installed here"
        )
    return _file(Path(where), arguments)


def _file(path: Path, arguments: Sequence[str]) -> Callable[[], object]:
    with path.open("rb") as file:
        first = file.readline(200)
    is_python = path.suffix in (".py", ".pyw") or (first.startswith(b"#!") and b"python" in first)
    if not is_python:
        raise ProgramNotFoundError(
            f"{path} is no Python program: tables can be attached only for code that uses GDAL's "
            "Python bindings in this process. A script or module is named without its interpreter: "
            "gdalbridge run SCRIPT, or -m MODULE"
        )
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    return partial(runpy.run_path, str(path), run_name="__main__")


def _entry_point(name: str) -> metadata.EntryPoint | None:
    if Path(name).name != name:
        return None
    for group in ("console_scripts", "gui_scripts"):
        for found in metadata.entry_points(group=group, name=name):
            return found
    return None
