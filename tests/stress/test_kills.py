"""Processes that are killed in the middle, a few hundred times. ``make stress`` does more."""

import pytest

from tests.stress.copies import COPIES
from tests.stress.kills import Killing
from tests.stress.operations import OPERATIONS

pytestmark = pytest.mark.thorough

STEPS = {"local": 10, "s3": 1}
"""Moments at which each is killed; where there are fewer, all of them."""
TIMES = {"local": 2, "s3": 1}
"""Random moments, besides."""


@pytest.mark.parametrize(
    "operation", [*OPERATIONS, *COPIES], ids=lambda operation: type(operation).__name__
)
def test_killed(operation, ground, nursery):
    killing = Killing(operation, ground, nursery)
    steps = STEPS[ground.kind]
    killing.everywhere(steps)
    assert killing.kills >= min(3, steps)
    killing.at_random(TIMES[ground.kind])
