"""A fresh instance, zarr-python and the check of a whole store see what the model has."""

from ratzarr import ColumnIncompleteError, DamagedError, RatZarr
from tests.ratzarr.histories.draws import MAX_ROWS
from tests.ratzarr.histories.views import attempt, expect, settled
from tests.ratzarr.looking import Look
from tests.ratzarr.model import same


class Truth:
    """Looks at everything."""

    def look(self):
        """A fresh instance sees just what the model has."""
        model = self.model
        with RatZarr(self.url, readOnly=True) as fresh:
            assert fresh.rowCount == model.rows
            assert fresh.getRATChunkSize() == model.chunk_rows
            self._check_attributes(fresh.getRatAttributeMapping(), model.attributes)
            assert fresh.getColumnNames() == list(model.columns)
            for name, column in model.columns.items():
                self._look_at(fresh, name, column, self._foreign(column))

    def _look_at(self, fresh, name, column, foreign):
        assert fresh.getColumnDtype(name) == column.dtype
        assert fresh.getColumnWidth(name) == column.width
        assert fresh.getColumnChunkSize(name) == column.chunk_rows
        self._check_attributes(fresh.getColumnAttributeMapping(name), column.attributes)
        events = len(fresh.getModificationLog(name))
        assert events == column.events, f"{name!r}: {events} events, expected {column.events}"
        if not column.complete:
            expect(attempt(fresh.readBlock, name, 0, MAX_ROWS)[1], ColumnIncompleteError)
        rows = len(column.values)
        pieces = [(0, rows)]
        if foreign:
            pieces = [(low, high) for _, low, high in column.parts(0, rows)]
        for low, high in pieces:
            block, error = attempt(fresh.readBlock, name, low, high - low, allowIncomplete=True)
            if low // column.chunk_rows in foreign and foreign:
                expect(error, DamagedError)
                continue
            settled(error)
            assert same(block, column.values[low:high]), (
                f"{name!r} from {low}: {block.tolist()}, expected {column.values[low:high].tolist()}"
            )

    def look_by_zarr(self):
        """And so does zarr-python."""
        look, model = Look(self.place, self.url), self.model
        raw = look.table
        assert raw.rows == model.rows
        assert raw.order == list(model.columns)
        self._check_attributes(raw.attributes, model.attributes)
        assert set(raw.columns) == set(model.columns)
        for name, column in model.columns.items():
            found = raw.columns[name]
            assert found.length == model.rows
            assert found.chunk_rows == column.chunk_rows
            self._check_attributes(found.attributes, column.attributes)
            assert len(found.attributes["MODIFICATIONLOG"]) == column.events
            foreign = look.foreign(name)
            for chunk, low, high in column.parts(0, model.rows):
                assert chunk in foreign or same(found.values[low:high], column.values[low:high]), (
                    f"{name!r}: {found.values[low:high].tolist()}, expected "
                    f"{column.values[low:high].tolist()}"
                )
        if not self.strays and not model.pending:
            assert raw.strangers(emptied=self.s3) == []
