"""Kill processes in the middle of what they do: everywhere, and at random moments.

*Everywhere*: on a local disk the process kills itself before each change of the file system in
turn; of S3, the proxy that it talks through kills it when it sends each request in turn.
*At random*: SIGKILL after a time between none and a little more than the whole thing takes.

After each: the table is read by zarr-python and judged, opened by ratzarr and compared with that,
what was interrupted is finished, and the table is read by zarr-python again.
"""

import time
from collections import Counter
from random import Random

from ratzarr import ColumnIncompleteError, RatZarr
from ratzarr.maintenance.check import check_store
from tests.stress.processes import Task, environment, no_failures
from tests.stress.raw import RawTable, same

ALL = "killed at every step"
RANDOM = "killed at random moments"
FREE = "not killed: done before"


class Killing:
    """One operation in one place, killed again and again.

    Parameters
    ----------
    operation, place, nursery
        What is done, where, and where the processes come from.
    """

    def __init__(self, operation, place, nursery, seed=0):
        self.operation, self.place, self.nursery = operation, place, nursery
        self.random = Random(seed)
        self.found = Counter()
        self.kills = 0
        self.took = 0.0
        """Seconds that it takes when nobody kills it."""
        with environment(place.environment):
            self.pattern = place.new()
            operation.prepare(self.pattern)

    def fresh(self):
        """Return where there is a table as it is before."""
        url = self.place.new()
        self.place.clone(self.pattern, url)
        return url

    def task(self, url, crash_at=None, variables=None):
        return Task(
            f"{type(self.operation).__module__}:act",
            (type(self.operation).__name__, url, *self.operation.arguments),
            self.place.environment if variables is None else variables,
            crash_at,
        )

    # ---- everywhere

    def everywhere(self, bound=None):
        """Kill it at every step; at some of them, where there are more than ``bound``."""
        if self.operation.most_steps is not None:
            bound = min(bound or self.operation.most_steps, self.operation.most_steps)
        step = self._step_s3 if self.place.kind == "s3" else self._step_local
        count = step(0)
        steps = range(1, count + 1)
        if bound is not None and count > bound:
            # The first and the last are where most comes together.
            some = {*steps[: bound // 3], *steps[-bound // 3 :]}
            rest = [number for number in steps if number not in some]
            steps = sorted(some | set(self.random.sample(rest, max(0, bound - len(some)))))
        for number in steps:
            step(number)
        return count

    def _step_local(self, number):
        url = self.fresh()
        child = self.nursery.start(self.task(url, crash_at=number))
        ending = self._ending(child)
        if not ending.killed:
            events, value = ending.value
            no_failures([value])
            assert number == 0 or len(events) < number
        self.look(url, ending.killed)
        return 0 if ending.killed else len(events)

    def _step_s3(self, number):
        url = self.fresh()
        executioner = self.place.executioner
        executioner.await_victim(number)
        child = self.nursery.start(self.task(url, variables=self.place.watched))
        executioner.victim(child.pid)
        ending = self._ending(child)
        if not ending.killed:
            no_failures([ending.value])
        self.look(url, ending.killed)
        return executioner.came

    def _ending(self, child):
        child.wait_begun()
        begun = time.monotonic()
        ending = child.join()
        if not ending.killed:
            self.took = max(self.took, time.monotonic() - begun)
        return ending

    # ---- at random

    def at_random(self, times):
        """Kill it at so many moments, spread over the time that it takes."""
        took = self.took or self.nursery.time(self.task(self.fresh()))
        for number in range(times):
            url = self.fresh()
            variables = None
            if self.place.kind == "s3":
                self.place.executioner.await_victim(0)
                variables = self.place.watched
            child = self.nursery.start(self.task(url, variables=variables))
            if child.wait_begun():
                time.sleep(1.1 * took * (number + self.random.random()) / times)
            child.signal()
            ending = child.join()
            if not ending.killed:
                no_failures([ending.value])
            self.look(url, ending.killed)

    # ---- afterwards

    def look(self, url, killed):
        """Judge what is there, finish it, and judge that."""
        self.place.settle()
        raw = RawTable(self.place.objects(url))
        said = self.operation.judge(raw, self.place)
        with environment(self.place.environment):
            if raw.there:
                agree(url, raw)
            try:
                self.operation.finish(url)
            except Exception as error:
                error.add_note(f"finishing after: {said}")
                raise
            try:
                end = RawTable(self.place.objects(url))
                self.operation.final(end)
            except AssertionError as error:
                error.add_note(f"after: {said}")
                raise
            if end.there:
                agree(url, end)
                assert findings(url) == []
        emptied = self.place.kind == "s3"
        strangers = end.strangers(emptied=emptied) if end.there else sorted(end.objects)
        assert strangers == [], f"left behind after {said!r}: {strangers}"
        # (An empty directory among a column's chunks goes with the column, and is nothing.)
        folders = [name for name in self.place.folders(url) if not is_of_chunks(name)]
        assert folders == [], f"left behind after {said!r}: {folders}"
        self.place.forget(url)
        if killed:
            self.kills += 1
            self.found[said] += 1
        else:
            self.found[FREE] += 1


def is_of_chunks(folder):
    """Return whether a directory is one that a column's chunks lie in."""
    parts = folder.split("/")
    return parts[0] == "RAT" and parts[2:3] == ["c"]


def agree(url, raw):
    """Fail unless ratzarr reads what zarr-python reads, and refuses what is not complete."""
    with RatZarr(url, readOnly=True, create=False) as table:
        assert table.getRowCount() == raw.rows
        assert set(table.getColumnNames()) == set(raw.columns)
        for name, column in raw.columns.items():
            if column.complete:
                values = table.readBlock(name, 0, raw.rows)
                assert same(values, column.values), (name, values, column.values)
            else:
                try:
                    table.readBlock(name, 0, raw.rows)
                except ColumnIncompleteError:
                    continue
                raise AssertionError(f"column {name!r} is not complete, and was read")


def findings(url):
    """Return what ratzarr's own checker finds wrong with a table."""
    return [str(finding) for finding in check_store(url) if finding.wrong]
