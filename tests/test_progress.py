"""Progress in a log file: whole lines, and none for short work."""

import io

import pytest

from catheters import progress


def test_a_log_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.0)  # a line for each item
    assert list(progress.track(range(5), "reading", 5)) == list(range(5))
    err = capsys.readouterr().err
    assert "\r" not in err
    lines = err.splitlines()
    assert all(line.startswith("reading: ") for line in lines)
    assert "5/5" in lines[-1]


def test_line_writer() -> None:
    stream = io.StringIO()
    writer = progress._LineWriter(stream)
    for text in ("\rreading:  50%", "\r", "\rreading: 100%", "\n"):
        writer.write(text)
    assert stream.getvalue() == "reading:  50%\nreading: 100%\n"


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(progress.track(range(5), "reading", 5)) == 10
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (5930, "99 min"), (5999, "1 h 40 min"), (190_000, "2 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
