"""Options for reading a raster's own attribute table.

>>> ReadOptions(encoding="cp1252").encoding
'cp1252'
>>> ReadOptions(encoding="latin-9").encoding
Traceback (most recent call last):
gdalbridge.errors.BridgeError: unknown encoding 'latin-9': expected a name such as 'utf-8', \
'cp1252' or 'iso-8859-1'
"""

import codecs
from dataclasses import dataclass

from gdalbridge.errors import BridgeError

__all__ = ["DEFAULTS", "SAY_ENCODING", "ReadOptions"]

SAY_ENCODING = 'Use encoding="cp1252" or the like to say which encoding it is.'
"""The hint of errors about text that can't be decoded."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading a raster's own table.

    Parameters
    ----------
    encoding : str, optional
        Encoding of its text and column names. By default UTF-8; for a ``.vat.dbf`` the
        encoding that the file declares.
    lossy : bool
        Read a table even if GDAL lost or altered values of it.
    block_io : bool
        Read and write many rows in one GDAL call, if its version is known to do that correctly.
        False works cell by cell, as with other versions.
    compared : bool
        Ignore GDAL's messages about lost and altered values, because the caller compares every
        value and reports the losses itself.

    Raises
    ------
    BridgeError
        For an unknown encoding.
    """

    encoding: str | None = None
    lossy: bool = False
    block_io: bool = True
    compared: bool = False

    def __post_init__(self) -> None:
        if self.encoding is not None and not is_encoding(self.encoding):
            raise BridgeError(
                f"unknown encoding {self.encoding!r}: expected a name such as 'utf-8', 'cp1252' "
                "or 'iso-8859-1'"
            )


def is_encoding(name: object) -> bool:
    """Return True if Python can decode text with this encoding."""
    try:
        # Some of Python's codecs do not decode to text: base64, rot13.
        return isinstance(name, str) and isinstance(b"a".decode(codecs.lookup(name).name), str)
    except (LookupError, ValueError):
        return False


DEFAULTS = ReadOptions()
