"""Several instances of one table at once: what one does while another looks back on before."""

import numpy as np
import pytest

from ratzarr import ChangedError, RatZarr

from .base import assert_same, make, raw


class Together:
    """Each of these was found by :mod:`tests.ratzarr.statemachine`."""

    def test_rows_cut_off_before_the_column_was_opened(self, place):
        """They are no rows of the table: a block for them is refused, not dropped in silence."""
        url = place.new()
        with make(url, 20, chunk=4, a=("int32",)) as table:
            instances = [RatZarr(url) for _ in range(3)]
            table.setRowCount(5)
            before = place.everything()
            for late, rows in zip(
                instances, (range(4, 12), range(8, 12), range(17, 20)), strict=True
            ):
                with pytest.raises(ChangedError, match="cut to 5 rows"):
                    late.writeBlock("a", np.arange(len(rows)), rows[0])
            after = place.everything()
            assert {key for key in after if "/c/" in key} == {
                key for key in before if "/c/" in key
            }
            table.refresh()
            assert_same(table.readBlock("a", 0, 20), np.zeros(5, np.int32))

    def test_an_attribute_that_was_set_since_is_removed(self, place):
        url = place.new()
        with make(url, 1, a=("int32",)) as table, RatZarr(url) as late:
            mappings = [late.getRatAttributeMapping(), late.getColumnAttributeMapping("a")]
            table.getRatAttributeMapping()["unit"] = "m"
            table.getColumnAttributeMapping("a")["unit"] = "m"
            for mapping in mappings:
                del mapping["unit"]
                assert "unit" not in mapping
                with pytest.raises(KeyError):
                    del mapping["unit"]
            assert "unit" not in dict(place.open(url)["RAT"].attrs)
            assert "unit" not in dict(place.open(url)["RAT/a"].attrs)

    @pytest.mark.parametrize("value", [2**62, -(2**62)])
    def test_date_times_beyond_every_calendar(self, place, value):
        """numpy has them, and has no text for them."""
        url = place.new()
        fill = np.array(value).view("M8[2W]")[()]
        with make(url, 3) as table:
            table.createColumn("a", "M8[2W]", fillValue=fill)
            table.createColumn("b", "M8[s]")
            with pytest.raises(ValueError, match=rf"{value} \* datetime64\[2W\]"):
                table.writeBlock("b", np.array([fill]), 0)
        with RatZarr(url) as table:
            assert_same(table.readBlock("a", 0, 3), np.full(3, fill))
            table.writeBlock("a", table.readBlock("a", 0, 2), 1)
