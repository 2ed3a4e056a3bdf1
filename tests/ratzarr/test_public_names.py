"""The public names: others import them, so none goes and none comes unnoticed."""

import importlib.metadata
import inspect
import unittest

import pytest

import ratzarr
from ratzarr import RatZarr, RatZarrError

NAMES = {
    "AllTests", "CHUNKSIZE_ATTR", "DFLT_CHUNKSIZE", "MODIFICATION_ATTR", "ROWCOUNT_ATTR",
    "RatZarr", "RatZarrError", "__version__", "colNameByType", "mainCmd",
}  # fmt: skip

# name: the parameters as api.md has them; after "*" come keyword-only ones
METHODS = {
    "__init__": "filename, readOnly=False, create=True, *, storageOptions=None",
    "setRowCount": "rowCount",
    "getRowCount": "",
    "colExists": "colName",
    "getColumnNames": "",
    "createColumn": "colName, dtype, width=1, *, fillValue=None",
    "deleteColumn": "colName",
    "openColumn": "colName",
    "readBlock": "colName, startRow, blockLen",
    "writeBlock": "colName, block, startRow",
    "setChunkSize": "chunksize",
    "getRATChunkSize": "",
    "getColumnChunkSize": "colName",
    "getColumnWidth": "colName",
    "getColumnDtype": "colName",
    "getColumnAttributeMapping": "colName",
    "getRatAttributeMapping": "",
    "getModificationLog": "colName",
    "readBlocks": "colNames, startRow, blockLen",
    "writeBlocks": "blocks, startRow",
    "refresh": "",
    "flush": "",
    "close": "",
}
STATIC = {"exists": "zarrfile", "isValidRatZarr": "zarrfile", "delete": "zarrfile"}


def parameters(function, skip):
    """Return positional parameters, and keyword-only ones, each as (name, default)."""
    found = list(inspect.signature(function).parameters.values())[skip:]
    assert not [p for p in found if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    keyword = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    return [(p.name, p.default) for p in found if p.kind is p.POSITIONAL_OR_KEYWORD], keyword


def listed(text):
    """Return the same from a list in words."""
    scope = {}
    exec(f"def function({text}): pass", scope)
    return parameters(scope["function"], 0)


def test_what_is_exported():
    assert set(ratzarr.__all__) >= NAMES
    for name in set(ratzarr.__all__) - NAMES:
        added = getattr(ratzarr, name)
        assert inspect.isclass(added), name
        assert issubclass(added, RatZarrError), name
    assert len(ratzarr.__all__) == len(set(ratzarr.__all__))


def test_constants():
    assert ratzarr.CHUNKSIZE_ATTR == "CHUNKSIZE"
    assert ratzarr.MODIFICATION_ATTR == "MODIFICATIONLOG"
    assert ratzarr.ROWCOUNT_ATTR == "ROWCOUNT"
    assert ratzarr.DFLT_CHUNKSIZE == 500000
    assert ratzarr.__version__ == importlib.metadata.version("ratzarr")


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    positional, keyword = parameters(getattr(RatZarr, name), 1)
    wanted_positional, wanted_keyword = listed(METHODS[name])
    assert positional == wanted_positional
    for option, default in wanted_keyword.items():
        assert keyword[option] == default
    assert inspect.Parameter.empty not in keyword.values()


@pytest.mark.parametrize("name", STATIC)
def test_static_methods(name):
    assert isinstance(inspect.getattr_static(RatZarr, name), staticmethod)
    positional, keyword = parameters(getattr(RatZarr, name), 0)
    assert positional == listed(STATIC[name])[0]
    assert inspect.Parameter.empty not in keyword.values()


def test_the_rest_of_the_class():
    assert RatZarr.__enter__
    assert RatZarr.__exit__
    assert RatZarr._repr_html_
    assert "rowCount" in dir(RatZarr)
    public = {name for name in dir(RatZarr) if not name.startswith("_")}
    known = set(METHODS) | set(STATIC) | {"rowCount"}
    assert known - {"__init__"} <= public


def test_every_error_is_a_ratzarr_error():
    assert issubclass(RatZarrError, Exception)
    for name in ratzarr.__all__:
        found = getattr(ratzarr, name)
        if inspect.isclass(found) and issubclass(found, BaseException):
            assert issubclass(found, RatZarrError), name


def test_the_self_test():
    assert issubclass(ratzarr.AllTests, unittest.TestCase)
    for name in ("simple", "flags", "resize", "colnames", "chunksize", "2d"):
        assert callable(getattr(ratzarr.AllTests, f"test_{name}"))
    for name in ("makeFilename", "deleteTestFile"):
        assert callable(getattr(ratzarr.AllTests, name))
    assert callable(ratzarr.mainCmd)
    assert dict(ratzarr.colNameByType)
    assert not parameters(ratzarr.mainCmd, 0)[0]


def test_everything_public_is_described():
    for name in ratzarr.__all__:
        if not name.isupper() and name not in ("__version__", "DFLT_CHUNKSIZE"):
            assert inspect.getdoc(getattr(ratzarr, name)), name
    for name in [*METHODS, *STATIC]:
        if name != "__init__":
            assert inspect.getdoc(getattr(RatZarr, name)), name
