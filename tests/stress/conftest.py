import pytest

from tests.stress.places import LocalGround, s3_ground
from tests.stress.processes import Crew, Nursery


@pytest.fixture(scope="session")
def crew():
    with Crew(8) as crew:
        yield crew


@pytest.fixture(scope="session")
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(params=["local", "s3"])
def ground(request, tmp_path):
    if request.param == "local":
        yield LocalGround(tmp_path)
        return
    label = request.config.getoption("--s3-server")
    with s3_ground(request.getfixturevalue("quick_s3"), label) as ground:
        yield ground
