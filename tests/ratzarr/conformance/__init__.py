"""What a table is, as tests that every place where tables lie has to pass.

Each module holds one part of it, written from the documents (the format and the public names)
and not from the code. A place inherits the whole::

    class TestTablesOnLocalDisk(TableConformance):
        @pytest.fixture
        def place(self, local):
            return local
"""

from .attributes import Attributes
from .casts import Casts
from .columns import Columns
from .damage import Damage
from .layout import Layout
from .log import Log
from .names import Names
from .opening import Opening
from .readonly import ReadOnly
from .rows import Rows
from .upstream import Upstream
from .views import Views
from .wholestores import WholeStores

__all__ = ["TableConformance"]


class TableConformance(
    Opening,
    Columns,
    Rows,
    Casts,
    Names,
    Layout,
    Attributes,
    Log,
    ReadOnly,
    Damage,
    Views,
    Upstream,
    WholeStores,
):
    """All of it. A subclass gives the fixture ``place`` (see :mod:`tests.places`)."""
