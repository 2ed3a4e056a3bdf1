"""How long to wait after losing a race, before the next try.

A random time that grows with each loss: writers that collided once would collide again
and again if they all came back in step.
"""

import random
import time

__all__ = ["TRIES", "pause"]

TRIES = 60
"""After so many lost races something else than bad luck is at work."""


def pause(attempt: int) -> None:
    """Wait before try number ``attempt``, counted from 0; not at all before the first."""
    if attempt:
        longest = min(0.5, 0.005 * 2 ** min(attempt, 10))
        time.sleep(random.uniform(0, longest))  # noqa: S311 - spreads load, guards nothing
