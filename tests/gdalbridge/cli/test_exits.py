"""How the program ends: real processes, real signals, and whatever goes wrong in words."""

import errno
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import click
import numpy as np
import pytest
from click.testing import CliRunner

from gdalbridge import build
from gdalbridge.cli import main
from gdalbridge.cli.exits import in_words
from gdalbridge.errors import BridgeError, OutputExistsError
from gdalbridge.settings import SIDECAR_DIR
from ratzarr import ColumnIncompleteError, RatZarr
from ratzarr.errors import Advice
from tests.gdalbridge.pixel_rasters import write
from tests.gdalbridge.sample_rasters import INTEGER, make, new_rat
from tests.processes import LIMIT, gdalbridge, running, silent_server, wait_until

SOON = 20
"""Seconds: a second or two, on a busy computer; what is interrupted would take a minute or more."""


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "seg.tif"
    columns = [("Value", INTEGER, 5, np.arange(30)), ("n", INTEGER, 0, np.arange(30))]
    dataset = make(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, 30))
    return path


def call(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def done(*args, **options):
    return subprocess.run(
        [str(word) for word in gdalbridge(*args)],
        **({"capture_output": True, "text": True, "timeout": LIMIT} | options),
        check=False,
    )


def interrupted(process):
    """Press Ctrl-C; return the exit code, what was said, and how long it took."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=LIMIT)
    return process.returncode, words, time.monotonic() - began


def check_interrupted(process, codes=(130,)):
    code, words, seconds = interrupted(process)
    assert code in codes, words
    assert "gdalbridge: interrupted" in words
    assert "Traceback" not in words
    assert "Exception ignored" not in words
    assert seconds < SOON


@contextmanager
def asking(command, *wrapper):
    """Run a command that GDAL has wait for a server."""
    with silent_server() as (address, asked):
        words = gdalbridge(command, f"http://{address}/x.tif")
        with running([*wrapper, *words]) as process:
            assert asked.wait(LIMIT)
            yield process


# ---- Ctrl-C

THOROUGH = pytest.mark.thorough


@pytest.mark.parametrize(
    "args",
    [
        ["info", "http://{0}/x.tif"],  # GDAL asks, and Python can do nothing meanwhile
        ["head", "http://{0}/x.rat.zarr"],
        ["copy", "/vsis3/bucket/x.tif"],
        ["cp", "{1}", "s3://bucket/dir/"],
        # They wait in the same places as the others.
        pytest.param(["copy", "/vsicurl/http://{0}/x.tif", "x.rat.zarr"], marks=THOROUGH),
        pytest.param(["head", "s3://bucket/x.rat.zarr"], marks=THOROUGH),
        pytest.param(["check", "s3://bucket/x.tif"], marks=THOROUGH),
        pytest.param(["ls", "s3://bucket/"], marks=THOROUGH),
        pytest.param(["rm", "s3://bucket/x.tif"], marks=THOROUGH),
        pytest.param(["doctor", "s3://bucket/x.tif"], marks=THOROUGH),
    ],
    ids=" ".join,
)
def test_ctrl_c_while_a_server_says_nothing(args, raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with silent_server() as (address, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        args = [arg.format(address, raster) for arg in args]
        with running(gdalbridge(*args)) as process:
            assert asked.wait(LIMIT)
            time.sleep(0.2)
            check_interrupted(process)
    assert sorted(path.name for path in tmp_path.iterdir() if "rat.zarr" in path.name) == []


@pytest.mark.parametrize(
    "module", ["gdalbridge.errors", "click.core", "numpy", "zarr", "osgeo.gdal"]
)
def test_ctrl_c_while_it_begins(module, raster):
    """While it still imports what it needs: Python says on stderr what it has imported."""
    command = [sys.executable, "-X", "importtime", "-m", "gdalbridge", "stats", raster]
    with running(command) as process:
        for line in process.stderr:
            if line.rstrip().endswith(f" {module}"):
                break
        # Python ends by the signal, which shells show as 130, too, if it came while an extension
        # module was running Python code of its own.
        check_interrupted(process, (130, -signal.SIGINT))


def test_ctrl_c_twice_does_not_wait():
    with asking("info") as process:
        _, _, once = interrupted(process)
    with asking("info") as process:
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        code, words, _ = interrupted(process)
        assert time.monotonic() - began < once
    assert code == 130
    assert "Traceback" not in words


def test_ctrl_c_that_is_ignored_stays_ignored():
    """As nohup, and a shell with what it runs in the background, ask."""
    with asking("info", "sh", "-c", "trap '' INT; exec \"$@\"", "sh") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=3)
        process.terminate()
        _, words = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGTERM
    assert "interrupted" not in words


def test_sigterm_ends_it_at_once():
    with asking("info") as process:
        process.terminate()
        _, words = process.communicate(timeout=SOON)
    assert (process.returncode, words) == (-signal.SIGTERM, "")


SCRIPT = """
import sys, time
from gdalbridge import ratapplier

begun = sys.argv[2]

def work(info, inputs, outputs):
    open(begun, "w").close()
    for _ in range(1200):
        time.sleep(0.05)

tables = ratapplier.RatAssociations()
tables.seg = ratapplier.RatHandle(sys.argv[1])
controls = ratapplier.RatApplierControls()
controls.setExecutor({executor!r})
ratapplier.apply(work, tables, ratapplier.RatAssociations(), controls=controls)
"""


@pytest.mark.main_env_only
@pytest.mark.parametrize("executor", ["serial", "threads", "processes"])
def test_ctrl_c_in_a_script(executor, raster, tmp_path):
    """The function works for a minute, in small steps; a terminal signals all processes."""
    script, begun = tmp_path / "script.py", tmp_path / "begun"
    script.write_text(SCRIPT.format(executor=executor))
    command = gdalbridge("run", script, raster, begun)
    with running(command, start_new_session=True) as process:
        wait_until(begun.exists)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, words = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, words
    assert "gdalbridge: interrupted" in words
    assert "Traceback" not in words
    assert time.monotonic() - began < SOON


def test_a_program_may_have_its_own_way_with_ctrl_c(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "try:\n    print('begun', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(3); print('all is saved')\n"
    )
    with running(gdalbridge("run", script)) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        out, words = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, words) == (0, "all is saved\n", "")


def test_a_programs_own_error_is_shown_as_python_does(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def work():\n    return 1 / 0\n\nwork()\n")
    shown = done("run", script)
    assert shown.returncode == 1
    alone = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert shown.stderr == alone.stderr
    assert "ZeroDivisionError" in alone.stderr


# ---- errors of any kind


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BridgeError("said"), "said"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.tif"), "x.tif: No such file"),
        (OSError(errno.EXDEV, "Other disk", "a", None, "b"), "a -> b: Other disk"),
        (OSError("only words"), "only words"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("GDAL said"), "GDAL said"),
        (RecursionError("maximum"), "nested too deeply: maximum"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), "not valid Unicode"),
        (KeyError("x"), "unforeseen error in test_exits.py, line"),
        (BridgeError("a\x1b[31mb"), "a\\x1b[31mb"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_any_kind(error, words, capsys):
    with pytest.raises(SystemExit) as ended, in_words():
        raise error
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("gdalbridge: ")
    assert words in said
    assert "Traceback" not in said
    assert "\x1b" not in said


def test_the_traceback_on_request(monkeypatch, capsys):
    monkeypatch.setenv("GDALBRIDGE_TRACEBACK", "1")
    with pytest.raises(SystemExit), in_words():
        raise KeyError("x")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["head", "{0}"], ["--help"], ["copy", "-h"], ["--version"]])
def test_a_full_disk_for_the_output(args, raster):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    args = [arg.format(raster) for arg in args]
    with open("/dev/full", "w") as full:
        ended = done(*args, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert (ended.returncode, ended.stderr) == (
            1, "gdalbridge: standard output: No space left on device\n",
        )  # fmt: skip
        assert done(*args, capture_output=False, stdout=full, stderr=full).returncode == 1


@pytest.mark.parametrize("args", [["head", "{0}", "--json"], ["--help"]])
def test_a_reader_that_has_gone(args, raster):
    reader, writer = os.pipe()
    os.close(reader)
    args = [arg.format(raster) for arg in args]
    with open(writer, "w") as pipe:
        ended = done(*args, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ls", "nothere/"], "nothere: No such file or directory"),
        (["demo", "--keep", "file/x"], "file/x: Not a directory"),
        (["demo", "--keep", "/proc/x"], "/proc/x: "),
        (["bake", "seg.tif", "/proc/x.tif"], "/proc"),
        (["copy", "seg.tif", "file/x.rat.zarr"], "file"),
        (["copy", "seg.tif", "/proc/x.rat.zarr"], "/proc/x.rat.zarr"),
        (["head", "zip://*::file:///x"], "zip://*::file:///x: "),
        (["head", "github://x.rat.zarr"], "github://x.rat.zarr: "),
        (["head", "reference://x.rat.zarr"], "reference://x.rat.zarr: "),
        (["head", "http://[::1/x.rat.zarr"], "http://[::1/x.rat.zarr"),
        (["head", "\udcff.tif"], "\\udcff.tif"),
        (["head", "x" * 5000 + ".rat.zarr"], "there is no RatZarr at"),
        (["run", "-m", "no_such_module"], "no_such_module"),
        (["run", "-m", "no_such_module.x"], "no_such_module"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_odd_arguments(args, words, raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    before = sorted(os.listdir(tmp_path))
    ended = done(*args, errors="surrogateescape")
    assert ended.returncode == 1, ended.stdout
    assert ended.stderr.startswith("gdalbridge: ")
    assert words in ended.stderr
    for word in ("Traceback", "unforeseen", "Exception ignored", "Unclosed"):
        assert word not in ended.stderr
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.main_env_only
def test_an_expression_that_is_no_text(raster):
    ended = done("calc", raster, "--out", "x", "Value + '\udcff'")
    assert ended.returncode == 1
    assert "unpaired surrogate" in ended.stderr
    assert not (raster.parent / "seg.tif.rat.zarr").exists()


def with_memory(size, *args):
    """Run a command in that many bytes, or in some more if that is where Python itself hangs.

    Its interpreter tries for ever to make a number while it handles an exception, if there is no
    megabyte left for more numbers (``exception_unwind`` in ceval.c of Python 3.12).
    """

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    for _ in range(5):
        try:
            return done(*args, preexec_fn=limit, timeout=LIMIT / 6)
        except subprocess.TimeoutExpired:
            size += 3 << 20
    raise AssertionError(f"it hangs in {size} bytes, and in less")


@pytest.mark.parametrize("megabytes", [120, 200, 300])
def test_too_little_memory(raster, megabytes):
    """Wherever it ends: words, and no traceback. OpenBLAS ends the process by itself."""
    ended = with_memory(megabytes << 20, "stats", raster)
    assert "Traceback" not in ended.stderr
    # OpenBLAS raises SIGINT where it can't start a thread.
    assert ended.returncode in (0, 1, 130)
    assert ended.returncode == 0 or ended.stderr


def test_names_that_are_no_text(raster, tmp_path):
    """They are shown with escapes, and JSON stays JSON."""
    import json

    table = tmp_path / "\udcff.rat.zarr"
    assert done("copy", raster, table).returncode == 0
    for args in (["ls", tmp_path], ["head", table]):
        shown = done(*args)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "\\udcff" in shown.stdout
    shown = done("head", table, "--json")
    assert json.loads(shown.stdout)["table"] == str(table)
    shown = done("head", table, "--json", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert json.loads(shown.stdout)["table"] == str(table)


# ---- options in place of keywords


def test_an_error_names_options_on_the_command_line_and_keywords_in_python(raster):
    from gdalbridge import copy_to_sidecar

    copy_to_sidecar(raster)
    with pytest.raises(OutputExistsError) as caught:
        copy_to_sidecar(raster)
    assert "Use overwrite=True to replace its columns, append=True to add" in str(caught.value)
    said = call("copy", raster).stderr
    assert "Use --overwrite to replace its columns, --append to add columns, or --resume" in said
    assert "=True" not in said


def test_only_the_hint_is_about_options():
    @click.command()
    @click.option("--overwrite", is_flag=True)
    @click.option("--verify/--no-verify", default=None)
    @click.option("--of", "format")
    def command(**_):
        with in_words():
            error = OutputExistsError(
                Advice("overwrite=True.tif exists.", "Use overwrite=True, verify=False, "
                       "format=... or other=True.")
            )  # fmt: skip
            error.add_note(Advice("Of overwrite=True:", "overwrite=True"))
            raise error

    said = CliRunner().invoke(command, []).stderr.splitlines()
    assert said == [
        "gdalbridge: overwrite=True.tif exists. Use --overwrite, --no-verify, --of or other=True.",
        "  Of overwrite=True: --overwrite",
    ]


def test_advice_survives_pickling():
    error = pickle.loads(pickle.dumps(BridgeError(Advice("It exists.", "Use overwrite=True."))))
    assert str(error) == "It exists. Use overwrite=True."
    assert error.args[0].hint == "Use overwrite=True."


def test_no_message_mixes_the_two():
    """Keywords are named in hints, and options by the command line alone."""
    import re
    from pathlib import Path

    root = Path(__file__).parents[3]
    mixed = re.compile(r"=(True|\"\w+\") \(--|\(--[a-z]+\)|, --[a-z]+\)")
    for package in ("ratzarr", "gdalbridge"):
        modules = [one for one in (root / package).rglob("*.py") if one.parent.name != "cli"]
        assert modules
        for module in modules:
            for line in module.read_text().splitlines():
                assert not mixed.search(textwrap.dedent(line)), (module.name, line)


def test_a_command_that_is_interrupted_leaves_a_sound_table(raster, tmp_path):
    """The process ends by itself within its grace: what it says names the way on."""
    rows = 100_000
    path = tmp_path / "big.tif"
    dataset = make(path)
    columns = [("a", INTEGER, 0, np.arange(rows)), ("b", INTEGER, 0, np.arange(rows))]
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, rows))
    dataset = None
    store = tmp_path / "big.tif.rat.zarr"
    with running(gdalbridge("copy", path, "--chunk-rows", 50)) as process:
        wait_until((store / "RAT/a/c/20").exists)
        code, words, seconds = interrupted(process)
    assert (code, seconds < SOON) == (130, True)
    assert "interrupted" in words
    assert "Use --resume to continue." in words
    assert "Traceback" not in words
    with RatZarr(store, readOnly=True) as table:
        assert table.rowCount == rows
        with pytest.raises(ColumnIncompleteError, match="'a' is not complete"):
            table.readBlock("a", 0, 1)
    assert not list(store.rglob("*.partial"))


BUSY = """
import hashlib, pathlib, sys
from gdalbridge.cli.exits import InterruptWatch
from ratzarr.stores import temporary_path

with temporary_path(pathlib.Path(sys.argv[1]), folder=True) as made:
    (made / "half").write_text("a large file")
    watch = InterruptWatch(0.2)
    print("ready", flush=True)
    # Like GDAL, it does not return to Python for a minute or two.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_ctrl_c_in_the_middle_of_gdals_work_leaves_no_temporary_output(tmp_path):
    with running([sys.executable, "-c", BUSY, tmp_path]) as process:
        assert process.stdout.readline() == "ready\n"
        assert os.listdir(tmp_path)
        # It is in the middle of the work.
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=LIMIT) == 130
        assert process.stderr.read() == "gdalbridge: interrupted\n"
    assert os.listdir(tmp_path) == []


def test_help_waits_for_no_large_library():
    program = (
        "import sys; from gdalbridge.cli import main; main(['--help'], standalone_mode=False); "
        "print({'numpy', 'zarr', 'numcodecs', 'osgeo'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\nset()\n")


@pytest.fixture
def locked(tmp_path):
    """A directory that can't be written, with a raster that has a table, and another one."""
    folder = tmp_path / "locked"
    folder.mkdir()
    for name in ("seg.tif", "bare.tif"):
        write(folder / name, np.array([[1, 1, 2]], "u1"), crs=32632)
    build(folder / "seg.tif", area=True)
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def unprivileged(*words):
    """Run a command of gdalbridge without root's right to write everywhere."""
    program = []
    if os.geteuid() == 0:
        program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which(program[0]) is None:
            pytest.skip("root may write everywhere")
    environment = {key: value for key, value in os.environ.items() if key != SIDECAR_DIR}
    return subprocess.run(
        [*program, *map(str, gdalbridge(*words))],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


@pytest.mark.main_env_only
@pytest.mark.parametrize(
    "words",
    [
        ["paint", "seg.tif", "area", "-o", "out.tif"],
        pytest.param(["paint", "seg.tif", "area", "-o", "out.png"], marks=THOROUGH),
        pytest.param(["export", "seg.tif", "out.csv"], marks=THOROUGH),
        pytest.param(["select", "seg.tif", "area > 1", "--mask", "out.tif"], marks=THOROUGH),
        pytest.param(["polygonize", "seg.tif", "out.gpkg"], marks=THOROUGH),
        pytest.param(["plot", "seg.tif", "area", "-o", "out.png"], marks=THOROUGH),
        ["sql", "seg.tif", "FROM rat", "-o", "out.csv"],
        ["bake", "seg.tif", "out.tif"],
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_a_directory_that_cannot_be_written_is_named(locked, words):
    done = unprivileged(*(locked / word if "." in word else word for word in words))
    assert done.returncode == 1
    assert done.stderr == f"gdalbridge: can't write in {locked}: Permission denied\n"


ATTACHED = """
import sys, gdalbridge
rat = gdalbridge.attach(sys.argv[1], update=True)
rat.CreateColumn("x", 1, 0)
"""
APPLIED = """
import sys
from gdalbridge.ratapplier import RatAssociations, RatHandle, apply
def made(info, inputs, outputs):
    outputs.new.x = inputs.seg.Histogram * 2.0
inputs, outputs = RatAssociations(), RatAssociations()
inputs.seg, outputs.new = RatHandle(sys.argv[2]), RatHandle(sys.argv[1])
apply(made, inputs, outputs)
"""


@pytest.mark.parametrize("program", [ATTACHED, APPLIED], ids=["attached", "applied"])
def test_the_same_in_programs(locked, tmp_path, program):
    script = tmp_path / "script.py"
    script.write_text(program)
    table = tmp_path / "seg.tif"
    write(table, np.array([[1, 1, 2]], "u1"))
    build(table)
    done = unprivileged("run", script, locked / "bare.tif", table)
    assert done.returncode == 1
    assert "StorePermissionError" in done.stderr
    assert "GDALBRIDGE_SIDECAR_DIR names a directory" in done.stderr


@pytest.mark.parametrize("words", [["build"], ["zonal", "seg.tif"]])
def test_the_way_out_for_a_sidecar_that_cannot_be_written(locked, words):
    more = [locked / word for word in words[1:]]
    done = unprivileged(words[0], locked / "bare.tif", *more)
    assert done.returncode == 1
    assert "no permission" in done.stderr
    assert "GDALBRIDGE_SIDECAR_DIR names a directory" in done.stderr
