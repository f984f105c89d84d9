"""An exclusive lock: one holder at a time, whom a kill cannot leave behind."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from catheters.errors import UserError
from catheters.io.locks import exclusive_lock
from tests.conftest import REPOSITORY

HOLD = """
import pathlib, sys
from catheters.io.locks import exclusive_lock
with exclusive_lock(pathlib.Path(sys.argv[1]), "held"):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "x.lock"


@pytest.fixture
def holder(lock_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(lock_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_the_refusal_says_who_holds_it(lock_file: Path, holder: subprocess.Popen[bytes]) -> None:
    refusal = "run: another process trains it"
    with pytest.raises(UserError, match=f"^{refusal}$"), exclusive_lock(lock_file, refusal):
        pass
    assert holder.poll() is None


def test_the_lock_of_a_killed_process_is_no_obstacle(lock_file: Path, holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    assert lock_file.exists()
    with exclusive_lock(lock_file, "held"):
        pass


def test_it_can_be_taken_again_and_leaves_no_file_where_asked(lock_file: Path) -> None:
    for remove in (False, True, True):
        with pytest.raises(ZeroDivisionError), exclusive_lock(lock_file, "held", remove=remove):
            assert lock_file.exists()
            raise ZeroDivisionError
        assert lock_file.exists() != remove


def test_with_a_timeout_the_lock_is_waited_for(lock_file: Path, holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    with exclusive_lock(lock_file, "held", timeout_s=60):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="file"), exclusive_lock(file / "x.lock", "held"):
        pass
