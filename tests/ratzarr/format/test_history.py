import datetime as dt
import getpass
import sys

import pytest

from ratzarr.format import history


@pytest.mark.parametrize(
    ("argv", "masked"),
    [
        (["p", "--password", "x", "y"], ["p", "--password", "***", "y"]),
        (["p", "--db-password=x=y"], ["p", "--db-password=***"]),
        (["p", "-token", "x"], ["p", "-token", "***"]),
        (["p", "--secret-key", "x"], ["p", "--secret-key", "***"]),
        (["p", "--api-key", "--verbose"], ["p", "--api-key", "--verbose"]),
        (["p", "AWS_SECRET_ACCESS_KEY=x"], ["p", "AWS_SECRET_ACCESS_KEY=***"]),
        (["p", "https://me:pw@host/x"], ["p", "https://***@host/x"]),
        (
            ["p", "https://h/x?a=1&X-Amz-Signature=ff&b=2"],
            ["p", "https://h/x?a=1&X-Amz-Signature=***&b=2"],
        ),
        (["p", "--year", "2026", "in.tif"], ["p", "--year", "2026", "in.tif"]),
    ],
)
def test_secrets_are_masked(argv, masked):
    assert history.mask(argv) == masked


def test_an_event_is_read_back():
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    entry = history.event(["prog", "--year", "2026"])
    [(when, user, argv)] = history.parse([entry])
    assert before <= when <= dt.datetime.now(dt.UTC)
    assert (user, argv) == (getpass.getuser(), ["prog", "--year", "2026"])


@pytest.mark.parametrize("given", [None, []])
def test_a_program_without_a_command_line(monkeypatch, given):
    monkeypatch.setattr(sys, "argv", given)
    _, _, argv = history.event()
    assert argv == []


def test_a_user_without_a_name(monkeypatch):
    def nobody():
        raise OSError("no username")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert history.event(["p"])[1] == "unknown"


def test_command_lines_that_are_not_text_or_not_short():
    words = history.event(["p", "\udcff", "x" * 5000, *["y"] * 1000])[2]
    assert "\ud800" not in "".join(words).encode().decode()
    assert len(words) == history.MAX_ARGUMENTS + 1
    assert words[-1] == "... (803 more)"
    assert max(map(len, words)) < 1010


def test_what_is_no_event_is_passed_over():
    good = ["2026-01-01T00:00:00+02:00", "me", ["x"]]
    [(when, _, _)] = history.parse([good, None, ["yesterday", "me", []], [1, 2]])
    assert when == dt.datetime(2025, 12, 31, 22, tzinfo=dt.UTC)
    assert history.parse(None) == []
    assert history.parse([["2026-01-01T00:00:00", "me", []]])[0][0].tzinfo is dt.UTC
