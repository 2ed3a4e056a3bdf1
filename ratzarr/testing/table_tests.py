"""All parts of the suite as one class."""

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
    """What a table is, as tests. A subclass gives the fixture ``place``.

    A test that can't apply to a place is set to None in the subclass, with the reason beside it.

    Attributes
    ----------
    examples
        How many histories of writes and resizes one of the tests plays: 40, fewer where a table
        takes long.
    """
