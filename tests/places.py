"""The S3 place of these tests, beside the places of :mod:`ratzarr.testing`."""

from ratzarr import testing
from ratzarr.testing import LocalPlace, StorePlace

__all__ = ["LocalPlace", "S3Place", "StorePlace"]


class S3Place(testing.S3Place):
    """A bucket of its own on one of the tests' servers."""

    def __init__(self, moto):
        self.moto = moto
        variables = moto.environment
        options = {
            "key": variables["AWS_ACCESS_KEY_ID"],
            "secret": variables["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": variables["AWS_ENDPOINT_URL"],
            "client_kwargs": {"region_name": variables["AWS_DEFAULT_REGION"]},
        }
        super().__init__(moto.fresh_bucket(), moto.client(), options)

    def put_many(self, url, contents):
        """Write many objects: thousands, so straight into the server, not by requests."""
        self.moto.put_many(
            self.bucket, {self.key(url, key): content for key, content in contents.items()}
        )
