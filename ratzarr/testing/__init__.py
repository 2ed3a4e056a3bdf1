"""Tests that every place for tables must pass, to be inherited. Needs pytest and hypothesis.

A table behaves the same wherever it lies. Whoever has a Zarr store, a file system or an
S3 server of their own can check that it does there, too::

    import pytest

    from ratzarr.testing import StorePlace, TableTests


    class TestTablesInMyStore(TableTests):
        @pytest.fixture
        def place(self):
            return StorePlace(MyStore())

The tests are written from the format and the public names, not from the code. PYTEST_DONT_REWRITE
"""

import pkgutil

import pytest

# An assert of a module that is imported already would say nothing but that it failed.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
)

from ratzarr.testing.places import LocalPlace, Place, S3Place, StorePlace  # noqa: E402
from ratzarr.testing.table_tests import TableTests  # noqa: E402

__all__ = ["LocalPlace", "Place", "S3Place", "StorePlace", "TableTests"]
