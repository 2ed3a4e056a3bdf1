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


@pytest.fixture(scope="session")
def dask_client():
    """A client of a Dask cluster of two processes on loopback, one for the session."""
    import dask
    from distributed import Client, LocalCluster

    with (
        # Otherwise Dask tries for half a minute to reach a worker that was killed by a test.
        dask.config.set({"distributed.comm.timeouts.connect": "5s"}),
        LocalCluster(
            # Any free port: there is a cluster in each process of the tests.
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
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
