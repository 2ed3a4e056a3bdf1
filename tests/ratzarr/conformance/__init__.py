"""What a table is, as tests that every place where tables lie has to pass.

Each module holds one part of it, written from the documents (the format and the public names)
and not from the code. A place inherits the whole::

    class TestTablesOnLocalDisk(TableConformance):
        @pytest.fixture
        def place(self, local):
            return local
"""

from collections import Counter

from .attributes import Attributes
from .bulk import Bulk
from .casts import Casts
from .columns import Columns
from .damage import Damage
from .layout import Layout
from .log import Log
from .names import Names
from .opening import Opening
from .readonly import ReadOnly
from .rows import Rows
from .together import BeingBuilt, Together
from .upstream import Upstream
from .views import Views
from .wholestores import WholeStores

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
