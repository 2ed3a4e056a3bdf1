"""The benchmarks run, and judge rightly; how fast anything is, is no test."""

import json
import re
import subprocess
import sys
from dataclasses import asdict

import pytest

from tests.benchmarks.contest import Bar, Result, Spread, compare, from_json, result
from tests.benchmarks.report import BEGIN, END, line, write

pytestmark = pytest.mark.main_env_only


@pytest.mark.thorough
def test_every_benchmark_runs():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--quick"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    titles = re.findall(r"^### (.+)$", done.stdout, re.MULTILINE)
    assert len(titles) == 11
    for section in re.split(r"^### .+$", done.stdout, flags=re.MULTILINE)[1:]:
        assert re.search(r"^\| .* \| .* \| \d", section, re.MULTILINE)


def test_wrong_usage_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no benchmark called nothing" in done.stderr


def test_a_ratio_is_of_neighbouring_runs_and_the_slower_rival_counts():
    seconds = {"ratzarr": [1.0, 2.0, 3.0], "a": [2.0, 2.0, 1.0], "b": [1.0, 4.0, 1.0]}
    at_most = result("work", "a|b", seconds, Bar(1.0))
    assert at_most.figure == Spread(0.5, 0.5, 3.0)
    assert at_most.reached
    times_as_fast = result("work", "a", seconds, Bar(2.0, at_least=True))
    assert times_as_fast.figure == Spread(1.0, 1 / 3, 2.0)
    assert not times_as_fast.reached


def test_all_run_once_in_a_round_in_turning_order_and_the_first_round_does_not_count():
    order = []
    seconds = compare({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_results_of_another_python_are_the_same_ones():
    for bar in (Bar(1.3), Bar(2.0, at_least=True), None):
        one = Result("work", "rival", Spread(3.0, 2.0, 4.0), bar, remark="r", seconds={"a": 1.0})
        assert from_json(json.dumps(asdict(one))) == one


def test_the_report_is_written_between_its_marks(tmp_path):
    path = tmp_path / "benchmarks.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    slow = Result("work", "rival", Spread(3.0, 2.0, 4.0), Bar(1.3))
    picture = tmp_path / "benchmarks" / "copies.svg"
    write(path, ["A machine."], {"Copies": [slow]}, [picture])
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert line(slow) == "| work | rival | 3.00 (2.00 to 4.00) | at most 1.3 | **no** |"
    assert line(slow) in text
    assert "\nA machine.\n" in text
    assert "![copies](benchmarks/copies.svg)" in text
    quick = Result("work", "rival", Spread(1.0, 0.5, 1.5), Bar(1.3))
    both = {"Copies": [slow], "Copies, HFA": [slow], "Opening": [slow]}
    write(path, ["A machine."], both, [picture])
    for _ in range(2):
        write(path, ["Another.", "More."], {"Copies": [quick]}, [picture], whole=False)
        text = path.read_text()
        copies, *others = re.split(r"(?m)^### .+\n", text)[1:]
        assert "Another." in copies
        assert line(quick) in copies
        assert line(slow) not in copies
        assert [line(slow) in one for one in others] == [True, True]
        assert text.count("A machine.") == text.count("Another.") == 1
        assert "![copies](benchmarks/copies.svg)" in text
        assert text.endswith("after\n")
    with pytest.raises(SystemExit, match="expected one section 'Queries'"):
        write(path, ["Another."], {"Queries": [quick]}, [], whole=False)
    path.write_text("no marks")
    with pytest.raises(SystemExit, match="expected the lines"):
        write(path, [], {}, [])
