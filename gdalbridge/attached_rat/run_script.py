"""Run a Python program in this process, as the interpreter would."""

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
    """Set ``sys.argv`` and ``sys.path``, and return a function that runs a program.

    Parameters
    ----------
    program : str
        The path of a Python script, the name of an installed command written in Python, or
        the name of a module, as after ``python -m``.
    arguments : sequence of str
        The program's ``sys.argv[1:]``.
    module : bool
        True if ``program`` is a module.

    Raises
    ------
    ProgramNotFoundError
        If the program does not exist or is not a Python program.
    """
    if module:
        # As with python -m, modules in the working directory come first.
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = [program, *arguments]
        try:
            found_module = util.find_spec(program)
        except ModuleNotFoundError as error:
            if not f"{program}.".startswith(f"{error.name}."):
                raise
            found_module = None
        if found_module is None:
            raise ProgramNotFoundError(f"no module named {program} was found")
        return partial(runpy.run_module, program, run_name="__main__", alter_sys=True)
    if Path(program).is_file():
        return _file(Path(program), arguments)
    where = shutil.which(program)
    if (found := _entry_point(program)) is not None:
        sys.argv = [where or program, *arguments]
        return lambda: sys.exit(found.load()())
    if where is None:
        raise ProgramNotFoundError(f"{program} is neither a file nor an installed command")
    return _file(Path(where), arguments)


def _file(path: Path, arguments: Sequence[str]) -> Callable[[], object]:
    with path.open("rb") as file:
        first = file.readline(200)
    is_python = path.suffix in (".py", ".pyw") or (first.startswith(b"#!") and b"python" in first)
    if not is_python:
        raise ProgramNotFoundError(
            f"{path} is not a Python program: tables can be attached only for code that uses GDAL's "
            "Python bindings in this process. Name a script or module without its interpreter: "
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
