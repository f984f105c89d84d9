"""What the program says can be silenced and redirected, as a notebook or a service wants it."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from catheters.runtime.console import NOTE, note, say, silent, warn


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("catheters")
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.handlers = handlers


def test_results_and_warnings_have_streams_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A per cent sign is no format."""
    say("100% of it")
    say()
    note("on the way")
    warn("odd")
    assert capsys.readouterr() == ("100% of it\n\n", "on the way\nwarning: odd\n")


def test_a_level_silences(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.setLevel(logging.WARNING)
    say("result")
    note("progress")
    warn("odd")
    assert capsys.readouterr() == ("", "warning: odd\n")


def test_another_handler_has_it_all(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    records: list[tuple[int, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append((record.levelno, record.getMessage()))

    logger.handlers = [Keep()]
    say("a")
    note("b")
    warn("c")
    assert records == [(logging.INFO, "a"), (NOTE, "b"), (logging.WARNING, "warning: c")]
    assert capsys.readouterr() == ("", "")


def test_silence_is_of_a_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """One that is asked for in this thread leaves another one its words."""
    with silent(True), ThreadPoolExecutor(1) as other:
        say("not this")
        with silent(False):
            say("nor this")
        other.submit(say, "but this").result()
    say("and this")
    assert capsys.readouterr().out == "but this\nand this\n"


def test_who_silences_before_importing_means_it() -> None:
    """As a script does, which knows the logger's name alone."""
    program = (
        "import logging; logging.getLogger('catheters').setLevel(logging.ERROR)\n"
        "from catheters.runtime.console import say, warn; say('a'); warn('b')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
