"""Many processes at one table, for a short while. ``make stress`` does it for longer."""

import pytest

from tests.stress import columns, metadata, resizing, rows  # noqa: F401 - they enter their scenarios
from tests.stress.scenario import SCENARIOS, Stage


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.play.__name__)
def test_together(scenario, ground, crew):
    # A request takes as long as some writes to a disk.
    rounds = scenario.rounds if ground.kind == "local" else max(2, scenario.rounds // 6)
    found = scenario.play(Stage(ground, crew, rounds))
    assert found
    assert all(number > 0 for number in found.values()), found
