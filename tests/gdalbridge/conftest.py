from contextlib import contextmanager

import pytest

from gdalbridge.apply.executors import make_executor


@pytest.fixture
def s3_bucket(moto_s3):
    """The name of a bucket of its own, the AWS variables leading there."""
    return moto_s3.bucket


@pytest.fixture(scope="session")
def worker_processes():
    """An executor of two processes, one for the session: they take a second to begin."""
    executor = make_executor("processes", 2)
    yield executor
    executor.close()


@contextmanager
def dask_cluster(workers):
    """Yield a client of a Dask cluster of processes on loopback."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            # Any free port: there is a cluster in each process of the tests.
            n_workers=workers, threads_per_worker=1, processes=True,
            dashboard_address="127.0.0.1:0", host="127.0.0.1",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@pytest.fixture(scope="session")
def dask_client():
    """A client of a Dask cluster of two processes, one for the session: no test may kill them."""
    with dask_cluster(2) as client:
        yield client


@pytest.fixture
def mortal_dask_client():
    """A client of a Dask cluster of three processes, two of which a test may kill.

    Dask does not always start another process in the place of one that was killed.
    """
    import dask
    import distributed  # noqa: F401 - its import adds its settings, which would be lost within

    # Otherwise Dask tries for half a minute to reach a worker that was killed.
    with dask.config.set({"distributed.comm.timeouts.connect": "5s"}), dask_cluster(3) as client:
        yield client


@pytest.fixture(params=["serial", "threads", "processes", "dask"])
def executor(request):
    """An executor of each kind, with two workers where there can be."""
    if request.param == "processes":
        yield request.getfixturevalue("worker_processes")
        return
    given = {"serial": {}, "threads": {"workers": 2}, "dask": {}}[request.param]
    kind = request.getfixturevalue("dask_client") if request.param == "dask" else request.param
    made = make_executor(kind, **given)
    yield made
    made.close()
