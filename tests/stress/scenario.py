"""What a scenario is: a function that has many processes collide, looks, and counts.

It is given a :class:`Stage`, fails by AssertionError, and returns a Counter: in words, what came of
it and how often.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ratzarr import RatZarr
from tests.stress.processes import Crew, Task, environment, no_failures
from tests.stress.raw import RawTable


@dataclass
class Stage:
    """Where a scenario takes place, and who is in it."""

    place: Any
    crew: Crew
    rounds: int
    seed: int = 0
    random: Random = field(init=False)

    def __post_init__(self):
        self.random = Random(self.seed)

    def run(self, tasks, between=None):
        """Run ``(function, arguments)`` in one process each; return results and failures."""
        made = [
            Task(f"{function.__module__}:{function.__name__}", arguments, self.place.environment)
            for function, arguments in tasks
        ]
        return self.crew.run(made, between)

    def run_all(self, function, *arguments):
        """Run one function in every process, with its number; none may fail."""
        ends = self.run([(function, (*arguments, n)) for n in range(len(self.crew))])
        no_failures(ends)
        return ends

    def table(self, url, **options):
        """Open a table in this process."""
        with environment(self.place.environment):
            return RatZarr(url, **options)

    def raw(self, url):
        """Read a table by zarr-python."""
        return RawTable(self.place.objects(url))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, and what it is called in the table."""

    name: str
    play: Callable[[Stage], Counter]
    rounds: int
    """For a short run."""


SCENARIOS: list[Scenario] = []


def scenario(name, rounds):
    """Enter a function into the list."""

    def enter(play):
        SCENARIOS.append(Scenario(name, play, rounds))
        return play

    return enter
