"""Executors: run a function on blocks in this thread, in threads, in processes, or on Dask.

An executor maps a function over blocks and yields the results in order, with a limited number of
blocks in progress. The results do not depend on the executor. Executors differ only in where the
function runs, and in how they handle failures of a process or machine.

>>> from contextlib import closing
>>> with closing(make_executor("threads", workers=2)) as executor:
...     list(executor.results(lambda start: start * 2, range(3)))
[0, 2, 4]
"""

from gdalbridge.apply.executors.choice import make_executor
from gdalbridge.apply.executors.local import Executor

__all__ = ["Executor", "make_executor"]
