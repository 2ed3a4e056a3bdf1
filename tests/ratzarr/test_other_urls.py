"""Any other URL that fsspec can read."""

import fsspec
import numpy as np
import pytest

from ratzarr import RatZarr, RatZarrError

from .conformance.base import STRING, make


@pytest.fixture
def memory_url(local):
    """A table copied into fsspec's memory, by fsspec."""
    path = local.new()
    with make(path, 9, chunk=4, a=("int32",), s=(STRING,), **{"b/c": ("int8",)}) as table:
        table.writeBlock("a", np.arange(9), 0)
        table.writeBlock("s", np.array(list("abcdefghi")), 0)
    system = fsspec.filesystem("memory")
    for key, content in local.objects(path).items():
        system.pipe_file(f"/conformance/x.zarr/{key}", content)
    yield "memory://conformance/x.zarr"
    system.rm("/conformance", recursive=True)


def test_reading(memory_url):
    with RatZarr(memory_url, readOnly=True) as table:
        assert table.rowCount == 9
        assert table.getColumnNames() == ["a", "s", "b/c"]
        assert table.readBlock("a", 3, 9).tolist() == [3, 4, 5, 6, 7, 8]
        assert table.readBlock("s", 0, 2).tolist() == ["a", "b"]
        assert table.readBlock("b/c", 0, 9).tolist() == [0] * 9
    assert RatZarr.exists(memory_url)
    assert RatZarr.isValidRatZarr(memory_url)
    assert not RatZarr.exists(memory_url + "2")


@pytest.mark.parametrize("url", ["memory://conformance/nothing.zarr", "nosuchscheme://x/y.zarr"])
def test_nothing_to_read(url):
    with pytest.raises(RatZarrError):
        RatZarr(url, readOnly=True)
