import shutil
from importlib.resources import files
from pathlib import Path

import pytest


@pytest.fixture
def nlcd(tmp_path):
    """A copy of the land-cover raster, with its .aux.xml."""
    data = Path(str(files("gdalbridge") / "data" / "nlcd"))
    for name in ("lc.tif", "lc.tif.aux.xml"):
        shutil.copyfile(data / name, tmp_path / name)
    return tmp_path / "lc.tif"


@pytest.fixture
def s3_bucket(moto_s3):
    """The name of a bucket of its own, the AWS variables leading there."""
    return moto_s3.bucket
