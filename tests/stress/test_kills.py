"""Processes that are killed in the middle, a few hundred times. ``make stress`` does more."""

import pytest

from .copies import COPIES
from .kills import Killing
from .operations import OPERATIONS

STEPS = {"local": 10, "s3": 1}
"""Moments at which each is killed; where there are fewer, all of them."""
TIMES = {"local": 2, "s3": 1}
"""Random moments, besides."""


@pytest.mark.parametrize(
    "operation", [*OPERATIONS, *COPIES], ids=lambda operation: type(operation).__name__
)
def test_killed(operation, ground, nursery):
    killing = Killing(operation, ground, nursery)
    # A thousand objects are slow to put into a bucket.
    few = operation.slow and ground.kind == "s3"
    steps = 1 if few else STEPS[ground.kind]
    killing.everywhere(steps)
    assert killing.kills >= min(3, steps)
    if not few:
        killing.at_random(TIMES[ground.kind])
