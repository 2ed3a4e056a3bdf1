import pytest


@pytest.fixture
def s3_bucket(moto_s3):
    """The name of a bucket of its own, the AWS variables leading there."""
    return moto_s3.bucket
