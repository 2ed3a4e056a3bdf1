"""The on-disk format: names, dtypes, documents and limits, without I/O.

The names below are for :mod:`gdalbridge` and other programs. The modules are internal.
"""

# mypy: implicit-reexport
from typing import TYPE_CHECKING

from ratzarr.lazy import lazy

if TYPE_CHECKING:
    from ratzarr.format.blocks import BLOCK_ROWS, Block, blocks_of, chunk_count
    from ratzarr.format.casting import as_block, exact, has_payload
    from ratzarr.format.dtypes import BYTES, STRING, empty_value, normalize_dtype
    from ratzarr.format.history import mask
    from ratzarr.format.limits import check_memory
    from ratzarr.format.names import (
        COLUMN_ORDER_ATTR,
        COMPLETE_ATTR,
        CUTS_ATTR,
        CUTTING_ATTR,
        FORMAT_VERSION_ATTR,
        GROUP,
        MISSING_ATTR,
        OWN_COLUMN_ATTRS,
        PROVENANCE_ATTR,
        RESIZE_ATTR,
        ROWS_DONE_ATTR,
        SHORTEST_CHUNK,
        TABLE_KEY,
        ZARR_JSON,
        chunk_rows_of,
        is_complete,
        kept_attributes,
        key_of,
        near_names,
    )

# Modules load on first use: some import zarr, which would slow down ``gdalbridge --help``.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "blocks": "BLOCK_ROWS Block blocks_of chunk_count",
        "casting": "as_block exact has_payload",
        "dtypes": "BYTES STRING empty_value normalize_dtype",
        "history": "mask",
        "limits": "check_memory",
        "names": "COLUMN_ORDER_ATTR COMPLETE_ATTR CUTS_ATTR CUTTING_ATTR FORMAT_VERSION_ATTR GROUP "
        "MISSING_ATTR OWN_COLUMN_ATTRS PROVENANCE_ATTR RESIZE_ATTR ROWS_DONE_ATTR SHORTEST_CHUNK "
        "TABLE_KEY ZARR_JSON chunk_rows_of is_complete kept_attributes key_of near_names",
    },
)
