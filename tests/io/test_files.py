"""Files are whole or absent."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from catheters.checkpoints.checkpoint import save_tensors
from catheters.io.files import DiskFullError, UnreadableFileError, link_or_copy, read_json, write_text, write_whole
from catheters.io.torch_files import read_torch_file


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    write_text(file, "old")

    def fail(part: Path) -> None:
        part.write_text("half of the n")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_whole(file, fail)
    assert file.read_text() == "old"
    write_text(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


WRITE_OFTEN = """
import pathlib, sys
from catheters.io.files import write_text
file, letter = pathlib.Path(sys.argv[1]), sys.argv[2]
for _ in range(200):
    write_text(file, letter * 100_000)
    assert len(set(file.read_text())) == 1
"""


@pytest.mark.slow
def test_two_processes_write_one_after_another(tmp_path: Path) -> None:
    """Neither finds its own file gone, nor are the contents mixed."""
    file = tmp_path / "x.txt"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, str(file), letter]) for letter in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert file.read_text() in ("a" * 100_000, "b" * 100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_full_disk_is_named(small_disk: Path) -> None:
    """Whoever writes, Python or torch: the old content stays, and nothing beside it."""
    file = small_disk / "x.pt"
    write_text(file, "old")
    content = {"weights": torch.zeros(500_000)}
    writers: tuple[Callable[[Path], object], ...] = (
        lambda part: save_tensors(part, content),
        lambda part: part.write_bytes(bytes(2_000_000)),
    )
    for write in writers:
        with pytest.raises(DiskFullError, match=r"x\.pt: the disk is full; make room and run the same command again"):
            write_whole(file, write)
        assert file.read_text() == "old"
        assert [path.name for path in small_disk.iterdir()] == ["x.pt"]


def test_a_second_name_outlives_the_first(tmp_path: Path, mount_disk: Callable[[str, str], Path]) -> None:
    """On the same disk without a second copy, on another with one."""
    write_text(tmp_path / "a", "old")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    other = mount_disk("other", "size=1m") / "c"
    link_or_copy(tmp_path / "a", other)
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "b").read_text() == other.read_text() == "old"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e400}', "1e400 is too large a number"),
        (b'{"a": 1' + b"0" * 400 + b"}", "is too large a number"),
        (b"[" * 100_000, "nested too deeply"),
        ('{"a": 1}'.encode("utf-16"), "'utf-8' codec can't decode"),
        (b'{"a": ', "Expecting value"),
    ],
    ids=["nan", "infinity", "1e400", "10**400", "nested", "utf-16", "cut"],
)
def test_json_is_read_strictly(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=rf"x\.json: damaged \(.*{reason}"):
        read_json(file)
    with pytest.raises(UnreadableFileError, match="no such file"):
        read_json(tmp_path / "y.json")


def test_a_flipped_bit_of_a_torch_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"weights": torch.arange(1000.0)}, file)
    assert torch.equal(read_torch_file(file)["weights"], torch.arange(1000.0))
    content = bytearray(file.read_bytes())
    content[content.index(torch.tensor([500.0]).numpy().tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"x\.pt: damaged \(x/data/0 is not what was written\)"):
        read_torch_file(file)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableFileError, match=r"x\.pt: damaged"):
        read_torch_file(file)


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from catheters.runtime.memory import NoMemoryToReadError
from catheters.models.weight_files import read_weight_file
from catheters.io.torch_files import read_torch_file
from catheters.checkpoints.snapshots import read_state

file = Path(sys.argv[1])
num_pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = num_pages * resource.getpagesize() + (60 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
for read in (read_torch_file, lambda file: read_state(file.parent), read_weight_file):
    try:
        read(file)
        print("read")
    except NoMemoryToReadError as error:
        print(error)
"""


@pytest.mark.slow
def test_no_memory_to_read_is_no_damage(tmp_path: Path) -> None:
    """A whole file for which the system gives no memory: an earlier snapshot would not be the answer to that.

    In a fresh process: the freed memory of an older one can hold the file within any limit.
    """
    file = tmp_path / "state.pt"
    torch.save({"weights": torch.zeros(25_000_000)}, file)  # 100 MB
    command = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"{file}: this machine has no memory left to read it (")
