"""All tests in one class."""

from ratzarr.testing.attributes import Attributes
from ratzarr.testing.bulk import Bulk
from ratzarr.testing.casts import Casts
from ratzarr.testing.columns import Columns
from ratzarr.testing.damage import Damage
from ratzarr.testing.layout import Layout
from ratzarr.testing.log import Log
from ratzarr.testing.names import Names
from ratzarr.testing.opening import Opening
from ratzarr.testing.read_only import ReadOnly
from ratzarr.testing.rows import Rows
from ratzarr.testing.together import BeingBuilt, Together
from ratzarr.testing.views import Views
from ratzarr.testing.whole_stores import WholeStores

__all__ = ["TableTests"]


class TableTests(
    Opening, Columns, Rows, Casts, Names, Layout, Attributes, Bulk, Log, ReadOnly, Damage, Views,
    Together, BeingBuilt, WholeStores,
):  # fmt: skip
    """The behaviour of a table, as tests. A subclass provides the fixture ``place``.

    To skip a test that cannot apply to a place, set it to None in the subclass, with the reason
    beside it.

    Attributes
    ----------
    examples
        Number of random histories of writes and resizes: 40; use fewer if the store is slow.
    """
