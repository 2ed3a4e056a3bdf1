"""Without an optional library, what needs it says which extra installs it; all else works."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ratzarr import RatZarr

pytestmark = pytest.mark.main_env_only

CALLS = {
    # what: the library it needs first to the extra that the message names
    "table.schema": {"pyarrow": "arrow"},
    "table.scan()": {"pyarrow": "arrow"},
    "table.to_arrow()": {"pyarrow": "arrow"},
    "table.__arrow_c_stream__()": {"pyarrow": "arrow"},
    "table.to_pandas()": {"pyarrow": "pandas", "pandas": "pandas"},
    "table.head()": {"pyarrow": "pandas", "pandas": "pandas"},
    "table.to_polars()": {"pyarrow": "polars", "polars": "polars"},
    "table.lazy()": {"pyarrow": "polars", "polars": "polars"},
    "table.to_dask()": {"pyarrow": "dask", "pandas": "dask", "dask": "dask"},
    "table.to_xarray()": {"pyarrow": "xarray", "dask": "xarray", "xarray": "xarray"},
    "table.sql('FROM rat')": {"pyarrow": "sql", "duckdb": "sql"},
    "table.describe()": {"pyarrow": "sql", "duckdb": "sql"},
    "table.plot('x')": {"pyarrow": "plot", "duckdb": "plot", "matplotlib": "plot"},
    "gdalbridge.column_stats(path)": {"pyarrow": "sql", "duckdb": "sql"},
    "gdalbridge.calc(path, {'y': 'x + 1'})": {"pyarrow": "sql", "duckdb": "sql"},
}
COMMANDS = {
    "describe PATH": {"pyarrow": "sql", "duckdb": "sql"},
    "plot PATH x -o OUT": {"pyarrow": "plot", "duckdb": "plot", "matplotlib": "plot"},
    "stats PATH": {"pyarrow": "sql", "duckdb": "sql"},
    "calc PATH --out y x+1": {"pyarrow": "sql", "duckdb": "sql"},
    "select PATH x>1": {"pyarrow": "sql", "duckdb": "sql"},
    "head PATH": {},
    "info PATH": {},
}
OF_TABLE = ("table.sql", "table.describe", "table.plot")

CODE = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

library, path, out, calls, commands, of_stores = json.loads(sys.argv[1])
sys.meta_path.insert(0, Blocker())
import click.testing
import gdalbridge, ratzarr
from gdalbridge.cli import main

found = {}
for kind, table in (("", gdalbridge.open_table(path)), ("store ", ratzarr.RatZarr(path))):
    for call in calls if not kind else of_stores:
        try:
            eval(call)
        except (gdalbridge.BridgeError, ratzarr.RatZarrError) as error:
            found[kind + call] = [isinstance(error, ImportError), str(error)]
for command in commands:
    words = [{"PATH": path, "OUT": out}.get(word, word) for word in command.split()]
    done = click.testing.CliRunner().invoke(main, words)
    if done.exit_code:
        found[command] = [done.exit_code == 1, done.output]
assert library not in sys.modules
print(json.dumps(found))
"""


@pytest.mark.parametrize("library", [
    "pyarrow", "duckdb", "matplotlib",
    pytest.param("polars", marks=pytest.mark.thorough),
    pytest.param("pandas", marks=pytest.mark.thorough),
    pytest.param("dask", marks=pytest.mark.thorough),
    pytest.param("xarray", marks=pytest.mark.thorough),
])  # fmt: skip
def test_the_error_names_the_extra(library, tmp_path):
    path = str(tmp_path / "seg.tif.rat.zarr")
    with RatZarr(path) as store:
        store["x"] = np.arange(100) / 3
    calls = {call: extras[library] for call, extras in CALLS.items() if library in extras}
    # RatZarr has these methods, too.
    stores = {
        call: extra for call, extra in calls.items()
        if call.startswith("table.") and not call.startswith(OF_TABLE)
    }  # fmt: skip
    expected = calls | {f"store {call}": extra for call, extra in stores.items()}
    expected |= {one: extras[library] for one, extras in COMMANDS.items() if library in extras}
    given = [library, path, str(tmp_path / "out.png"), list(calls), list(COMMANDS), list(stores)]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(given)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(expected)
    for call, (is_ours, message) in found.items():
        assert is_ours, call
        assert f"pip install 'ratzarr[{expected[call]}]'" in message, (call, message)
        assert "conda" in message
        assert library in message.lower()
