"""The helper process lives as long as its client, however that ends, and can be replaced."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.gdalbridge.ogr.test_values import write
from tests.processes import running, silent_server, wait_until

pytestmark = pytest.mark.main_env_only

ROWS = 200_000
BEGIN = """
import os, signal, sys
from osgeo import gdal, ogr
gdal.UseExceptions()
ogr.UseExceptions()
def say(*words):
    print(*words, flush=True)
dataset = gdal.OpenEx("RATZARR:" + sys.argv[1], gdal.OF_VECTOR)
layer = dataset.GetLayer(0)
"""


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "t.rat.zarr", {"x": np.arange(ROWS)}, chunk=50_000)


@pytest.fixture
def environment(driver_path):
    return os.environ | {"GDAL_PYTHON_DRIVER_PATH": driver_path}


def client(code, path):
    return [sys.executable, "-c", BEGIN + code, path]


def processes():
    """Map the numbers of all processes to their parents and command lines."""
    found = {}
    for number in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/stat") as stat, open(f"/proc/{number}/cmdline") as line:
                state, parent = stat.read().rpartition(")")[2].split()[:2]
                found[int(number)] = int(parent), state, line.read().split("\0")
        except OSError:
            pass  # it has just ended
    return found


def helpers(parent):
    return [
        number
        for number, (its, state, command) in processes().items()
        if its == parent and state != "Z" and "gdalbridge.ogr.helper" in command
    ]


def is_gone(number):
    return number not in processes() or processes()[number][1] == "Z"


def test_the_helper_ends_with_a_client_that_ends(path, environment):
    code = "say(layer.GetNextFeature().GetFID()); sys.stdin.read()"
    with running(client(code, path), stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == "0\n"
        (helper,) = helpers(process.pid)
        said, errors = process.communicate()
        assert (process.returncode, said, errors) == (0, "", "")
        wait_until(lambda: is_gone(helper))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_helper_ends_with_a_client_that_is_killed(path, environment, number):
    code = "say(sum(1 for _ in zip(layer, range(5000)))); sys.stdin.read()"
    with running(client(code, path), stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == "5000\n"
        (helper,) = helpers(process.pid)
        process.send_signal(number)
        process.wait()
        wait_until(lambda: is_gone(helper))


def test_the_helper_ends_while_it_waits_for_a_server(environment):
    with silent_server() as (address, asked):
        environment = environment | {
            "AWS_ENDPOINT_URL": f"http://{address}", "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b", "RATZARR_FIRST_ANSWER": "60",
        }  # fmt: skip
        command = client("", "s3://bucket/t.rat.zarr")
        with running(command, env=environment) as process:
            assert asked.wait(60)
            (helper,) = helpers(process.pid)
            process.kill()
            process.wait()
            wait_until(lambda: is_gone(helper))


def test_a_helper_that_is_killed_is_an_error_and_then_replaced(path, environment):
    code = """
# As in a program in C: a write to a closed pipe would end it.
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
say(layer.GetFeature(5000).GetField(0))
sys.stdin.readline()
try:
    layer.GetFeature(6000)
except RuntimeError as error:
    say("ended with exit code -9" in str(error))
say(layer.GetFeature(7000).GetField(0), layer.GetFeatureCount())
say(sum(1 for _ in layer))
"""
    with running(client(code, path), stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == "5000\n"
        (helper,) = helpers(process.pid)
        os.kill(helper, signal.SIGKILL)
        wait_until(lambda: is_gone(helper))
        said, errors = process.communicate("\n")
        assert (process.returncode, errors) == (0, "")
        assert said.split("\n") == ["True", f"7000 {ROWS}", str(ROWS), ""]


def test_a_forked_child_goes_on_with_a_helper_of_its_own(path, environment):
    code = """
features = iter(layer)
first = [next(features).GetFID() for _ in range(3000)]
child = os.fork()
rest = [feature.GetFID() for feature in features]
assert first + rest == list(range(layer.GetFeatureCount()))
say("child" if child == 0 else "parent", layer.GetFeature(77777).GetField(0))
if child == 0:
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), signal.SIGSTOP)
"""
    with running(client(code, path), stdin=subprocess.PIPE, env=environment) as process:
        said = {process.stdout.readline(), process.stdout.readline()}
        assert said == {"child 77777\n", "parent 77777\n"}
        (child,) = (
            number
            for number, (parent, _, command) in processes().items()
            if parent == process.pid and "gdalbridge.ogr.helper" not in command
        )
        (helper,), (childs_helper,) = helpers(process.pid), helpers(child)
        process.kill()
        process.wait()
        # Although the child still lives.
        wait_until(lambda: is_gone(helper))
        assert not is_gone(child)
        assert not is_gone(childs_helper)
        process.stdin.close()
        wait_until(lambda: is_gone(childs_helper))


def test_a_forked_child_that_does_nothing_keeps_no_helper_alive(path, environment):
    code = """
layer.GetFeature(5)
child = os.fork()
if child:
    say(child)
sys.stdin.read()
os._exit(0)
"""
    with running(client(code, path), stdin=subprocess.PIPE, env=environment) as process:
        child = int(process.stdout.readline())
        (helper,) = helpers(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: is_gone(helper))
        assert not is_gone(child)
        process.stdin.close()
        wait_until(lambda: is_gone(child))


def test_a_table_that_has_changed_when_the_helper_is_replaced(path, environment):
    code = """
say(layer.GetFeature(1).GetField(0))
sys.stdin.readline()
for _ in range(2):
    try:
        layer.GetFeature(6000)
    except RuntimeError as error:
        say(str(error).splitlines()[-1])
"""
    with running(client(code, path), stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == "1\n"
        (helper,) = helpers(process.pid)
        write(path, {"other": np.arange(ROWS)})
        os.kill(helper, signal.SIGKILL)
        wait_until(lambda: is_gone(helper))
        said, _ = process.communicate("\n")
        assert f"{path}: its columns or its number of rows have changed" in said.splitlines()[1]


@pytest.mark.parametrize("again", ["the table", "its rows"])
def test_what_is_no_longer_read_is_forgotten(again, path, environment):
    """Many tables of one program share a helper, whose threads do not grow in number."""
    code = """
say()
one = dataset
for turn in range(30):
    if sys.argv[2] == "the table":
        one = gdal.OpenEx("RATZARR:" + sys.argv[1], gdal.OF_VECTOR)
    one.GetLayer(0).ResetReading()
    assert one.GetLayer(0).GetNextFeature().GetFID() == 0
    features = iter(one.GetLayer(0))
    assert sum(1 for _ in zip(features, range(2000))) == 2000
    del features
say(layer.GetFeature(3).GetField(0))
sys.stdin.read()
"""
    with running([*client(code, path), again], stdin=subprocess.PIPE, env=environment) as process:
        process.stdout.readline()
        (helper,) = helpers(process.pid)
        assert process.stdout.readline() == "3\n"
        assert helpers(process.pid) == [helper]
        threads = os.listdir(f"/proc/{helper}/task")
        assert len(threads) < 12, threads


def test_what_starts_no_helper_is_named(path, environment, tmp_path):
    for python, message in (
        (tmp_path / "python", f"can't start ratzarr's Python {tmp_path}/python"),
        ("/bin/false", "/bin/false -m gdalbridge.ogr.helper did not start with exit code 1"),
    ):
        given = environment | {"RATZARR_PYTHON": str(python)}
        done = subprocess.run(
            client("", path), env=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert message in done.stderr
