import pytest

from .places import LocalGround, s3_ground
from .processes import Crew, Nursery


@pytest.fixture(scope="session")
def crew():
    with Crew(8) as crew:
        yield crew


@pytest.fixture(scope="session")
def nursery():
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(params=["local", "moto"])
def ground(request, tmp_path):
    if request.param == "local":
        yield LocalGround(tmp_path)
        return
    with s3_ground(request.getfixturevalue("moto"), "moto") as ground:
        yield ground
