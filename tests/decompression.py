"""How many bytes are decompressed: counted where numcodecs, which does it, is called."""

from contextlib import contextmanager
from unittest import mock

from numcodecs import blosc


@contextmanager
def decompressed():
    """Yield a list to which the size of each decompressed buffer is added."""
    sizes = []
    decompress = blosc.decompress

    def counted(source, dest=None):
        found = decompress(source, dest)
        sizes.append(memoryview(found).nbytes)
        return found

    with mock.patch.object(blosc, "decompress", counted):
        yield sizes
