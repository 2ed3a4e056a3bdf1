"""Conversion of a chunk's values to bytes and back.

The name below is for :mod:`gdalbridge` and other programs. The modules are internal.
"""

from ratzarr.codecs.strings import to_fixed_width

__all__ = ["to_fixed_width"]
