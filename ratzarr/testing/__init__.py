"""Tests that every kind of store must pass, to be inherited. Needs pytest and hypothesis.

A table behaves the same in every store. If you have your own Zarr store, file system or S3 server,
inherit these tests to check it::

    import pytest

    from ratzarr.testing import StorePlace, TableTests


    class TestTablesInMyStore(TableTests):
        @pytest.fixture
        def place(self):
            return StorePlace(MyStore())

The tests follow the format and the public names, not the code. PYTEST_DONT_REWRITE
"""

import pkgutil

import pytest

# Without rewriting, an assert in a module that is imported already would show no values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
)

from ratzarr.testing.places import LocalPlace, Place, S3Place, StorePlace  # noqa: E402 - see above
from ratzarr.testing.table_tests import TableTests  # noqa: E402 - see above

__all__ = ["LocalPlace", "Place", "S3Place", "StorePlace", "TableTests"]
