"""Who does the work on blocks: this thread, others, other processes, or a Dask cluster.

An executor maps a function over blocks and hands back the results in order, with a bounded
number of blocks under way. Whichever it is, a block's result is the same: only where the
function runs differs, and what happens when a machine fails.

>>> from contextlib import closing
>>> with closing(make_executor("threads", workers=2)) as executor:
...     list(executor.results(lambda start: start * 2, range(3)))
[0, 2, 4]
"""

from gdalbridge.apply.executors.choice import make_executor
from gdalbridge.apply.executors.local import Executor

__all__ = ["Executor", "make_executor"]
