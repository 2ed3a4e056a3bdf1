"""Read-only tables."""

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.testing.helpers import make, refused

MUTATORS = {
    "setRowCount": lambda table: table.setRowCount(3),
    "setRowCount, the same": lambda table: table.setRowCount(9),
    "setChunkSize": lambda table: table.setChunkSize(3),
    "createColumn": lambda table: table.createColumn("new", "int32"),
    "deleteColumn": lambda table: table.deleteColumn("a"),
    "writeBlock": lambda table: table.writeBlock("a", np.arange(9), 0),
    "writeBlock, no rows": lambda table: table.writeBlock("a", np.arange(0), 0),
    "writeBlocks": lambda table: table.writeBlocks({"a": np.arange(9)}, 0),
}
CHANGES = {
    "setitem": lambda mapping: mapping.__setitem__("x", 1),
    "setitem, new": lambda mapping: mapping.__setitem__("y", 1),
    "delitem": lambda mapping: mapping.__delitem__("x"),
    "update": lambda mapping: mapping.update({"y": 1}),
    "put": lambda mapping: mapping.put({"y": 1}),
    "put, nothing": lambda mapping: mapping.put({}),
    "pop": lambda mapping: mapping.pop("x"),
    "popitem": lambda mapping: mapping.popitem(),
    "clear": lambda mapping: mapping.clear(),
    "setdefault": lambda mapping: mapping.setdefault("y", 1),
    "setdefault, there": lambda mapping: mapping.setdefault("x", 1),
}


class ReadOnly:
    """No operation on a table opened for reading changes the store."""

    def _written(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
            table.getRatAttributeMapping()["x"] = 1
            table.getColumnAttributeMapping("a")["x"] = 1
        return url, RatZarr(place.at(url), readOnly=True)

    @pytest.mark.parametrize("name", MUTATORS)
    def test_methods_read_only(self, place, name):
        url, table = self._written(place)
        with table, refused(place, url, table=table):
            MUTATORS[name](table)

    @pytest.mark.parametrize("name", CHANGES)
    def test_attributes_read_only(self, place, name):
        _, table = self._written(place)
        with table:
            for mapping in (table.getRatAttributeMapping(), table.getColumnAttributeMapping("a")):
                with refused(place, table=table):
                    CHANGES[name](mapping)
                assert mapping["x"] == 1

    def test_reading_read_only(self, place):
        _, table = self._written(place)
        before = place.everything()
        with table:
            assert table.readBlock("a", 0, 9).tolist() == list(range(9))
            assert table.readBlocks(["a"], 2, 2)["a"].tolist() == [2, 3]
            table.openColumn("a")
            assert len(table.getModificationLog("a")) == 1
            assert table.getRatAttributeMapping()["ROWCOUNT"] == 9
            table.refresh()
            table.flush()
        assert place.everything() == before
