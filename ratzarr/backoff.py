"""How long to wait after losing a race, before the next try, and when to stop.

A random time that grows with each loss: writers that collided once would collide again
and again if they all came back in step. A server whose etags change with every answer
refuses every try, so there is an end in tries and in seconds.
"""

import random
import time
from collections.abc import Iterator

__all__ = ["PATIENCE", "TRIES", "Attempts"]

TRIES = 60
"""After so many lost races something else than bad luck is at work."""
PATIENCE = 120.0
"""Seconds after which there is no further try, where nothing else was set."""


class Attempts:
    """The tries of one change, with a pause before each but the first.

        for attempt in (attempts := Attempts(patience)):
            ...
        raise ConflictError(f"others came first {attempts}")

    Parameters
    ----------
    patience : float
        Seconds after which there is no further try.
    """  # fmt: skip

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience, self._began = patience, time.monotonic()
        self._count = 0

    def __iter__(self) -> Iterator[int]:
        for attempt in range(TRIES):
            if attempt:
                wait = random.uniform(0, min(0.5, 0.005 * 2 ** min(attempt, 10)))  # noqa: S311 - spreads load, guards nothing
                if time.monotonic() + wait > self._began + self._patience:
                    return
                time.sleep(wait)
            self._count = attempt + 1
            yield attempt

    def __str__(self) -> str:
        times = "once" if self._count == 1 else f"{self._count} times"
        return f"{times} in {time.monotonic() - self._began:.1f} s"
