"""An unfinished cache: kills at any moment, power cuts, full disks; the finished one is as if nothing had been."""

import contextlib
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheError, index_file, open_cache
from catheters.data.cache.index import CacheRow
from catheters.data.cache.partial import CachePart, CacheRows
from catheters.data.cache.writer import build_cache, tidy_up
from catheters.data.preprocessing import Preprocessing
from catheters.data.tables.label_table import LabelTable
from catheters.errors import UserError
from tests.conftest import REPOSITORY, run_script
from tests.hangs import output_of, wait_until

PLAIN = Preprocessing(image_shape=(8, 8))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x_8.npy"


def part_file(file: Path) -> Path:
    return file.with_suffix(".npy.part")


def journal_file(file: Path) -> Path:
    return file.with_suffix(".npy.journal")


def both(file: Path) -> tuple[bytes, bytes]:
    return file.read_bytes(), index_file(file).read_bytes()


def killed_build(table: LabelTable, file: Path, num_rows: int) -> tuple[bytes, bytes]:
    """(part, journal) as SIGKILL leaves them after so many rows."""
    child = os.fork()
    if child == 0:
        write = CachePart.write

        def write_and_die(part: CachePart, row: int, entry: CacheRow, pixels: bytes) -> None:
            write(part, row, entry, pixels)
            if len(part.done) == num_rows:
                os.kill(os.getpid(), signal.SIGKILL)

        CachePart.write = write_and_die  # type: ignore[method-assign]
        build_cache(table, file, PLAIN, num_workers=1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    return part_file(file).read_bytes(), journal_file(file).read_bytes()


@pytest.fixture
def undisturbed(tmp_path: Path, table: LabelTable) -> tuple[bytes, bytes]:
    build_cache(table, tmp_path / "undisturbed_8.npy", PLAIN)
    return both(tmp_path / "undisturbed_8.npy")


def test_a_killed_build_resumes(
    file: Path, table: LabelTable, undisturbed: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    killed_build(table, file, num_rows=3)
    with pytest.raises(CacheError, match="no such image cache"):
        open_cache(file, table, PLAIN)
    build_cache(table, file, PLAIN)
    assert "resuming an unfinished build: 3 X-rays done" in capsys.readouterr().out
    assert both(file) == undisturbed
    assert not part_file(file).exists()
    assert not journal_file(file).exists()


def test_what_a_power_cut_lost_is_done_again(
    file: Path, table: LabelTable, undisturbed: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """The journal came to the disk and one row's pixels did not; the journal's last line came in half."""
    part, journal = killed_build(table, file, num_rows=4)
    part_file(file).write_bytes(part.replace(undisturbed[0][128 : 128 + 64], bytes(64)))
    journal_file(file).write_bytes(journal[:-30])
    build_cache(table, file, PLAIN)
    assert "2 X-rays done" in capsys.readouterr().out
    assert both(file) == undisturbed


def test_sources_that_changed_since_the_kill_are_read_again(file: Path, table: LabelTable) -> None:
    killed_build(table, file, num_rows=5)
    cv2.imwrite(str(table.paths[0]), np.full((16, 16), 9, dtype=np.uint8))
    build_cache(table, file, PLAIN)
    assert (open_cache(file, table, PLAIN).images[0] == 9).all()


@pytest.mark.parametrize("change", ["preprocessing", "table", "journal", "part"])
def test_an_unfinished_build_of_something_else_is_given_up(
    file: Path, table: LabelTable, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_build(table, file, num_rows=3)
    preprocessing = PLAIN
    if change == "preprocessing":
        preprocessing = dataclasses.replace(PLAIN, resize="pad")
    elif change == "table":
        table = table.take(np.array([4, 3, 2, 1]))
    elif change == "journal":
        journal_file(file).write_bytes(b"\xff\n\n")
    else:
        part_file(file).unlink()
    build_cache(table, file, preprocessing)
    assert "resuming" not in capsys.readouterr().out
    other = file.with_name("other_8.npy")
    build_cache(table, other, preprocessing)
    assert both(file) == both(other)


def test_a_kill_between_the_last_two_steps(
    file: Path, table: LabelTable, undisturbed: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """The part has its final name, and there is no index yet: hours of work are not done again."""
    killed_build(table, file, num_rows=5)
    part_file(file).rename(file)
    build_cache(table, file, PLAIN)
    assert "5 X-rays done" in capsys.readouterr().out
    assert both(file) == undisturbed


def test_an_array_that_is_no_cache_is_not_overwritten(file: Path, table: LabelTable) -> None:
    np.save(file, np.arange(1000))
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"x_8\.npy: has no index, so it is not known to be a cache"):
        build_cache(table, file, PLAIN)
    assert file.read_bytes() == before


def test_disk_without_room(file: Path, table: LabelTable) -> None:
    huge = Preprocessing(image_shape=(10**9, 10**9))
    with pytest.raises(UserError, match=r"the cache needs 5000000000\.0 GB more, .* GB are free; set cache_folder"):
        build_cache(table, file, huge)


def test_a_disk_that_runs_full_meanwhile(
    small_disk: Path, tmp_path: Path, table: LabelTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, keeps what is done, and resumes when there is room again."""
    preprocessing = Preprocessing(image_shape=(400, 400))  # 160 kB per row
    file, ballast = small_disk / "x_400.npy", small_disk / "ballast"
    write = CachePart.write

    def write_beside_another_program(part: CachePart, row: int, entry: CacheRow, pixels: bytes) -> None:
        write(part, row, entry, pixels)
        if len(part.done) == 2:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as other:
                while other.write(bytes(4096)):
                    pass

    with monkeypatch.context() as patch:
        patch.setattr(CachePart, "write", write_beside_another_program)
        with pytest.raises(UserError, match=r"small_disk: the disk is full; make room and run the same command again"):
            build_cache(table, file, preprocessing)
    with pytest.raises(CacheError, match="no such image cache"):
        open_cache(file, table, preprocessing)
    ballast.unlink()
    build_cache(table, file, preprocessing)
    build_cache(table, tmp_path / "reference_400.npy", preprocessing)
    assert both(file) == both(tmp_path / "reference_400.npy")


@pytest.mark.slow
def test_kills_at_random_moments() -> None:
    """Three of tests/stress/kill_cache.py's; its 20 are run by hand."""
    done = subprocess.run(
        [sys.executable, "tests/stress/kill_cache.py", "--num-kills", "3", "--num-images", "120"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills" in done.stdout
    assert "files that differ: none; left behind: nothing" in done.stdout


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(settings: Settings, tmp_path: Path) -> None:
    """The script says how far it came, exits with status 130, and resumes."""
    arguments = [f"dataset_folder={settings.dataset_folder}", f"cache_folder={tmp_path}", "image_size=4096"]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "preproc_npy.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    journal = tmp_path / "ranzcr_4096.npy.journal"
    wait_until(lambda: process.poll() is not None or (journal.exists() and journal.read_bytes().count(b"\n") > 3))
    process.send_signal(signal.SIGINT)
    output, _ = output_of(process)
    assert process.returncode == 130, output
    assert "of 40 X-rays done; the same command resumes there" in output
    result = run_script("preproc_npy.py", *arguments)
    assert result.returncode == 0, result.stderr
    assert "resuming an unfinished build" in result.stdout


def test_the_journal_of_a_kill_at_the_very_end_is_tidied_up(cached: Settings) -> None:
    """The index is written, the journal still there."""
    journal = cached.cache_file.with_suffix(".npy.journal")
    journal.write_text("of the build that made it\n")
    tidy_up(cached.cache_file)
    assert not journal.exists()
    journal.write_text("of a build that is not done\n")
    cached.cache_file.with_suffix(".npy.part").touch()
    tidy_up(cached.cache_file)
    assert journal.exists()


@pytest.mark.parametrize("row", [2, 999, -1])
def test_a_journal_that_names_a_row_there_is_not(tmp_path: Path, row: int) -> None:
    """It ends there, as at a line that a kill cut off."""
    pixels = bytes(range(16))
    entry = CacheRow(uid="a", file="a.png", size=1, mtime_ns=1, digest=hashlib.sha256(pixels).hexdigest(), notes={})
    with contextlib.closing(CachePart(tmp_path / "c_4.npy", (2, 4, 4), "key")) as part:
        part.write(0, entry, pixels)
    journal = tmp_path / "c_4.npy.journal"
    content = journal.read_bytes()
    journal.write_bytes(content + content.splitlines(keepends=True)[1].replace(b"0 ", b"%d " % row, 1))
    with contextlib.closing(CachePart(tmp_path / "c_4.npy", (2, 4, 4), "key")) as part:
        part.keep_valid(lambda row, _entry: [True, True][row])  # as the builder asks its table
        assert part.done == {0: entry}
    assert journal.read_bytes() == content


def test_a_rank_of_a_killed_launch_does_not_write_into_what_follows(tmp_path: Path) -> None:
    """It has the files open until it ends; a build of something else waits for it, and has files of its own."""
    cache_file, shape = tmp_path / "c_2.npy", (3, 2, 2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        CachePart(cache_file, shape, "earlier")
        rows = CacheRows(cache_file, shape, "earlier", rank=1)
        os.write(writer, b"open")
        while not (tmp_path / "waits").exists():
            time.sleep(0.05)
        rows.write(1, CacheRow(uid="b", file="b.png", size=1, mtime_ns=0, notes={}), b"late")
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 4) == b"open"
    late = part_file(cache_file).open("r+b")  # as of a rank on a machine whose locks are not seen
    threading.Timer(1.0, (tmp_path / "waits").touch).start()
    with contextlib.closing(CachePart(cache_file, shape, "later")) as part:
        assert (tmp_path / "waits").exists()
        late.seek(0)
        late.write(bytes([255]) * 200)
        late.close()
        assert part.done == {}
        assert part_file(cache_file).read_bytes()[-12:] == bytes(12)
        assert not journal_file(cache_file).with_suffix(".journal.1").exists()
    assert os.waitpid(child, 0)[1] == 0
