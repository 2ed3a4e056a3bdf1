"""A self-test for users, to verify an installation and its credentials.

``ratzarr_tests`` runs it in a temporary directory. If the environment variable ``S3BUCKET`` names
a bucket, it runs there instead. It is not the project's test suite.
"""

import sys
import tempfile
import unittest
import uuid
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ratzarr.errors import RatZarrError
from ratzarr.settings import selftest_bucket
from ratzarr.table import RatZarr

__all__ = ["AllTests", "colNameByType", "mainCmd"]

colNameByType: dict[Any, str] = {
    np.int32: "int32col",
    np.float32: "float32col",
    np.dtypes.StringDType(): "stringcol",
}
"""Column names by dtype, for each dtype tested."""


class AllTests(unittest.TestCase):
    """Writes small tables, reads them back, and removes them."""

    _folder: ClassVar[tempfile.TemporaryDirectory[str]]
    _prefix: ClassVar[str]
    usingS3 = False
    s3bucket: str | None = None

    @classmethod
    def setUpClass(cls) -> None:
        """Choose unique names."""
        cls._folder = tempfile.TemporaryDirectory(prefix="ratzarr_tests_")
        cls._prefix = f"ratzarr_tests_{uuid.uuid4().hex}"

    @classmethod
    def tearDownClass(cls) -> None:
        """Remove the temporary directory."""
        cls._folder.cleanup()

    def makeFilename(self, filename: str) -> str:
        """Return the full name of a test table, on local disk or in ``S3BUCKET``."""
        self.s3bucket = selftest_bucket()
        self.usingS3 = bool(self.s3bucket)
        if self.usingS3:
            return f"s3://{self.s3bucket}/{self._prefix}/{filename}"
        return str(Path(self._folder.name, filename))

    def deleteTestFile(self, filename: str) -> None:
        """Remove a test table, if it exists."""
        RatZarr.delete(self.makeFilename(filename))

    def _fresh(self, filename: str) -> str:
        self.deleteTestFile(filename)
        self.addCleanup(self.deleteTestFile, filename)
        return self.makeFilename(filename)

    def test_simple(self) -> None:
        """Columns of each dtype return the written values, in blocks and at once."""
        table = RatZarr(self._fresh("simple.zarr"))
        half = 50
        table.setRowCount(2 * half)
        table.setChunkSize(half)
        for dtype, name in colNameByType.items():
            first = np.arange(half).astype(dtype)
            second = np.arange(half, 2 * half).astype(dtype)
            table.createColumn(name, dtype)
            table.writeBlock(name, second, half)
            table.writeBlock(name, first, 0)
            found = table.readBlock(name, 0, 2 * half)
            self.assertEqual(found.dtype, np.dtype(dtype))
            np.testing.assert_array_equal(found, np.concatenate([first, second]))
            log = table.getModificationLog(name)
            self.assertEqual(len(log), 1)
            self.assertEqual(log[0][2][:1], sys.argv[:1])

    def test_flags(self) -> None:
        """Flags: nothing is created or changed without a request."""
        filename = self._fresh("flags.zarr")
        with self.assertRaises(RatZarrError):
            RatZarr(filename, readOnly=True)
        with self.assertRaises(RatZarrError):
            RatZarr(filename, create=False)
        self.assertFalse(RatZarr.exists(filename))
        RatZarr(filename).setRowCount(3)
        self.assertTrue(RatZarr.isValidRatZarr(filename))
        table = RatZarr(filename, readOnly=True)
        self.assertEqual(table.getRowCount(), 3)
        with self.assertRaises(RatZarrError):
            table.createColumn("a", np.int32)

    def test_resize(self) -> None:
        """Rows that are cut off do not come back."""
        table = RatZarr(self._fresh("resize.zarr"))
        table.setRowCount(100)
        values = np.arange(1, 101, dtype=np.int32)
        table.createColumn("col", values.dtype)
        table.writeBlock("col", values, 0)
        table.setRowCount(50)
        np.testing.assert_array_equal(table.readBlock("col", 0, 100), values[:50])
        table.setRowCount(100)
        expected = np.where(values <= 50, values, 0)
        np.testing.assert_array_equal(table.readBlock("col", 0, 100), expected)

    def test_colnames(self) -> None:
        """Columns are found by name, in order of creation, until they are deleted."""
        filename = self._fresh("colnames.zarr")
        table = RatZarr(filename)
        table.setRowCount(10)
        for name in ("second", "first", "b1/b2 ratio"):
            table.createColumn(name, np.int32)
            self.assertTrue(table.colExists(name))
        names = RatZarr(filename, readOnly=True).getColumnNames()
        self.assertEqual(names, ["second", "first", "b1/b2 ratio"])
        with self.assertRaises(RatZarrError):
            table.createColumn("first", np.float64)
        table.deleteColumn("first")
        self.assertFalse(table.colExists("first"))
        with self.assertRaises(RatZarrError):
            table.deleteColumn("first")

    def test_chunksize(self) -> None:
        """The chunk size persists and applies to columns created afterwards."""
        filename = self._fresh("chunksize.zarr")
        table = RatZarr(filename)
        table.setRowCount(100)
        table.createColumn("before", np.int32)
        before = table.getRATChunkSize()
        table.setChunkSize(30)
        table.createColumn("after", np.int32)
        table = RatZarr(filename, readOnly=True)
        self.assertEqual(table.getRATChunkSize(), 30)
        self.assertEqual(table.getColumnChunkSize("before"), before)
        self.assertEqual(table.getColumnChunkSize("after"), 30)

    def test_2d(self) -> None:
        """A column can have several values per row."""
        table = RatZarr(self._fresh("2d.zarr"))
        table.setRowCount(20)
        table.setChunkSize(8)
        values = np.arange(60, dtype=np.float32).reshape(20, 3)
        table.createColumn("spectrum", values.dtype, width=3)
        self.assertEqual(table.getColumnWidth("spectrum"), 3)
        table.writeBlock("spectrum", values[5:], 5)
        table.writeBlock("spectrum", values[:5], 0)
        np.testing.assert_array_equal(table.readBlock("spectrum", 0, 20), values)


def mainCmd() -> None:
    """Run the self-test; the exit code says whether it passed."""
    bucket = selftest_bucket()
    place = f"in s3://{bucket}" if bucket else "on local disk (set S3BUCKET to test a bucket)"
    print(f"ratzarr self-test {place}", file=sys.stderr)
    unittest.main(module="ratzarr.selftest", argv=["ratzarr_tests", *sys.argv[1:]])
