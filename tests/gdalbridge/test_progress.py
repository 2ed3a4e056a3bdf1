import io
import sys

import pytest

from gdalbridge import BridgeError
from gdalbridge.errors import CancelledError
from gdalbridge.progress import progress_of


def test_none_is_silent(capsys):
    with progress_of(None) as told:
        told.report(0.5, "half")
    assert capsys.readouterr() == ("", "")


def test_true_is_silent_without_a_terminal(capsys):
    with progress_of(True) as told:
        told.report(0.5)
    assert capsys.readouterr() == ("", "")


def test_true_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_of(True) as told:
        for step in range(11):
            told.report(step / 10, "Histogram")
    assert "100%" in terminal.getvalue()


def test_a_gdal_callback():
    calls = []
    with progress_of(lambda *args: calls.append(args) or 1) as told:
        told.report(0.25, "a")
    assert calls == [(0.25, "a", None)]


@pytest.mark.parametrize("answer", [0, False])
def test_a_gdal_callback_that_cancels(answer):
    with progress_of(lambda *_: answer) as told, pytest.raises(CancelledError):
        told.report(0.5)


def test_a_callback_without_an_answer_goes_on():
    with progress_of(lambda *_: None) as told:
        told.report(0.5)


class Rios:
    def __init__(self, cancelled=False):
        self.seen, self.cancelled = [], cancelled

    def setTotalSteps(self, steps):
        self.seen.append(("steps", steps))

    def setProgress(self, progress):
        self.seen.append(progress)

    def wasCancelled(self):
        return self.cancelled


def test_a_progress_object_of_rios():
    rios = Rios()
    with progress_of(rios) as told:
        told.report(0.5)
    assert rios.seen == [("steps", 100), 50]
    with progress_of(Rios(cancelled=True)) as told, pytest.raises(CancelledError):
        told.report(0.5)


def test_details_are_for_callbacks():
    said = []
    with progress_of(lambda *given: said.append(given)) as told:
        told.report(0.5, "area", detail="block 1 of 2")
        told.report(0.5, detail="block 1 of 2")
        told.report(1.0)
    assert [message for _, message, _ in said] == ["area, block 1 of 2", "block 1 of 2", ""]


def test_anything_else_is_refused():
    with pytest.raises(BridgeError, match="progress is None, True"), progress_of("loud"):
        pass
