"""Processes that are killed in the middle, a few hundred times. ``make stress`` does more."""

import pytest

from .kills import Killing
from .operations import OPERATIONS

STEPS = {"local": 10, "s3": 2}
TIMES = {"local": 2, "s3": 1}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_killed(operation, ground, nursery):
    killing = Killing(operation, ground, nursery)
    killing.everywhere(5 if operation.slow else STEPS[ground.kind])
    assert killing.kills >= 3
    killing.at_random(TIMES[ground.kind])
