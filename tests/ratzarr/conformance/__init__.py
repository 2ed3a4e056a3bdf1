"""What a table is, as tests that every place where tables lie has to pass.

Each module holds one part of it, written from the documents (the format and the public names)
and not from the code. A place inherits the whole::

    class TestTablesOnLocalDisk(TableConformance):
        @pytest.fixture
        def place(self, local):
            return local
"""

from collections import Counter

from tests.ratzarr.conformance.attributes import Attributes
from tests.ratzarr.conformance.bulk import Bulk
from tests.ratzarr.conformance.casts import Casts
from tests.ratzarr.conformance.columns import Columns
from tests.ratzarr.conformance.damage import Damage
from tests.ratzarr.conformance.layout import Layout
from tests.ratzarr.conformance.log import Log
from tests.ratzarr.conformance.names import Names
from tests.ratzarr.conformance.opening import Opening
from tests.ratzarr.conformance.readonly import ReadOnly
from tests.ratzarr.conformance.rows import Rows
from tests.ratzarr.conformance.together import BeingBuilt, Together
from tests.ratzarr.conformance.upstream import Upstream
from tests.ratzarr.conformance.views import Views
from tests.ratzarr.conformance.wholestores import WholeStores

__all__ = ["TableConformance"]


PARTS = (
    Opening, Columns, Rows, Casts, Names, Layout, Attributes, Bulk, Log, ReadOnly, Damage, Views,
    Together, BeingBuilt, Upstream, WholeStores,
)  # fmt: skip

# Of two methods of one name a class inherits only one: the other would never run.
_twice = [
    name
    for name, count in Counter(name for part in PARTS for name in vars(part)).items()
    if count > 1 and not name.startswith("__")
]
assert not _twice, _twice


class TableConformance(*PARTS):
    """All of it. A subclass gives the fixture ``place`` (see :mod:`tests.places`)."""
