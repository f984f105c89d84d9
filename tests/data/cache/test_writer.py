"""Writing the cache: bad images, what is taken over, other processes, constant memory."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheError, index_file, open_cache
from catheters.data.cache.writer import build_cache
from catheters.data.preprocessing import Preprocessing
from catheters.data.tables.label_table import LabelTable
from catheters.errors import UserError
from tests.conftest import run_script
from tests.data.decoding.test_polarity import drawn_chest

PLAIN = Preprocessing(image_shape=(8, 8))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x_8.npy"


def both(file: Path) -> tuple[bytes, bytes]:
    return file.read_bytes(), index_file(file).read_bytes()


def test_same_sources_same_bytes_whatever_the_number_of_processes(tmp_path: Path, table: LabelTable) -> None:
    build_cache(table, tmp_path / "a_8.npy", PLAIN, num_workers=1)
    build_cache(table, tmp_path / "b_8.npy", PLAIN, num_workers=4)
    assert both(tmp_path / "a_8.npy") == both(tmp_path / "b_8.npy")


def test_one_bad_image_does_not_stop_it(file: Path, table: LabelTable) -> None:
    table.paths[1].write_bytes(table.paths[1].read_bytes()[:40])
    table.paths[3].unlink()
    build_cache(table, file, PLAIN)
    cache = open_cache(file, table, PLAIN)
    assert cache.failed.keys() == {"1", "3"}
    assert cache.failed["3"] == "no such file"
    assert not cache.images[1].any()
    good = np.asarray(cache.images)[[0, 2, 4]]
    assert cache.mean == pytest.approx(good.mean() / 255, abs=1e-12)  # black rows do not count


def test_no_readable_image_at_all(file: Path, table: LabelTable) -> None:
    for path in table.paths:
        path.unlink()
    with pytest.raises(UserError, match=r"0\.png: no such file; nor could any other of the 5 X-rays"):
        build_cache(table, file, PLAIN)
    assert sorted(path.name for path in file.parent.iterdir()) == ["sources", "x_8.lock"]


def test_another_data_sets_cache_is_not_overwritten(file: Path, table: LabelTable) -> None:
    build_cache(table.take(np.array([0, 1])), file, PLAIN)
    before = both(file)
    with pytest.raises(
        UserError, match=r"is the cache of another data set, with images such as 0; set another cache_name"
    ):
        build_cache(table.take(np.array([2, 3])), file, PLAIN)
    assert both(file) == before


def test_only_what_changed_is_decoded(file: Path, table: LabelTable) -> None:
    """Rows of the earlier cache are taken over: its X-rays may even be gone; the result is as if rebuilt."""
    build_cache(table.take(np.array([0, 1, 2])), file, PLAIN)
    gone = table.paths[0].read_bytes()
    table.paths[0].unlink()
    cv2.imwrite(str(table.paths[1]), np.full((16, 16), 9, dtype=np.uint8))
    build_cache(table, file, PLAIN)
    cache = open_cache(file, table, PLAIN)
    assert cache.failed == {}
    assert (cache.images[1] == 9).all()
    table.paths[0].write_bytes(gone)
    build_cache(table, file.with_name("anew_8.npy"), PLAIN)
    assert file.read_bytes() == file.with_name("anew_8.npy").read_bytes()


def test_a_copied_data_set_is_recognised_by_its_content(
    file: Path, table: LabelTable, capsys: pytest.CaptureFixture[str]
) -> None:
    build_cache(table, file, PLAIN)
    before = file.stat()
    for path in table.paths:
        os.utime(path, ns=(1, 1))
    with pytest.raises(CacheError, match="another time of change"):
        open_cache(file, table, PLAIN)
    build_cache(table, file, PLAIN)
    assert "files have another time of change and the same content: the pixels stay" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    open_cache(file, table, PLAIN)
    # One of the same size and another content is decoded again.
    data = bytearray(table.paths[2].read_bytes())
    assert cv2.imencode(".png", cv2.imread(str(table.paths[2]), cv2.IMREAD_UNCHANGED))[1].tobytes() == bytes(data)
    data[-20] ^= 1  # in the pixels: no image any more
    table.paths[2].write_bytes(bytes(data))
    build_cache(table, file, PLAIN)
    assert open_cache(file, table, PLAIN).failed.keys() == {"2"}


@pytest.mark.slow
def test_what_could_not_be_read_is_tried_again(settings: Settings, tmp_path: Path) -> None:
    """A disk or network may have failed for a while, and the file's size and time stay as they are."""
    data = tmp_path / "data"
    shutil.copytree(settings.dataset_folder, data)
    victim = next((data / "train").glob("*.jpg"))
    content, state = victim.read_bytes(), victim.stat()
    victim.write_bytes(bytes(len(content)))
    os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    arguments = [f"dataset_folder={data}", f"cache_folder={tmp_path}", "image_size=32"]
    first = run_script("preproc_npy.py", *arguments)
    assert first.returncode == 1
    assert "is nothing but zeros" in first.stderr
    again = run_script("preproc_npy.py", *arguments)
    assert again.returncode == 1
    assert "is up to date" in again.stdout
    victim.write_bytes(content)
    os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    mended = run_script("preproc_npy.py", *arguments)
    assert mended.returncode == 0, mended.stderr
    assert "X-rays that could not be read can be read now" in mended.stdout
    assert "40 images" in mended.stdout


@pytest.mark.slow
def test_excluded_images_are_no_failure(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for uid, image in {"upright": drawn_chest(), "inverted": 255 - drawn_chest()}.items():
        cv2.imwrite(str(tmp_path / "train" / f"{uid}.png"), image)
    (tmp_path / "train.csv").write_text("StudyInstanceUID,PatientID,L\nupright,a,0\ninverted,b,1\n")
    table = [f"dataset_folder={tmp_path}", "path_pattern=train/{uid}.png", "label_columns=['L']", "pos_weight={}"]
    result = run_script(
        "preproc_npy.py",
        *table,
        f"cache_folder={tmp_path}",
        "image_size=64",
        "annotation_table=None",
        "lines=None",
        "inverted=exclude",
    )
    assert result.returncode == 0, result.stderr
    assert "1 X-ray left out, as the settings say:" in result.stderr
    assert "excluded: likely inverted grayscale" in result.stderr


def test_names_that_are_not_utf8(tmp_path: Path, table: LabelTable) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")
    odd.write_bytes(table.paths[0].read_bytes())
    table = dataclasses.replace(table, paths=(odd, *table.paths[1:]))
    build_cache(table, tmp_path / "x_8.npy", PLAIN)
    assert open_cache(tmp_path / "x_8.npy", table, PLAIN).entries[0].file.endswith(r"caf\xe9.png")


def test_two_processes_at_once(file: Path, table: LabelTable) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import filelock, sys\nwith filelock.FileLock(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()",
            str(file.with_suffix(".lock")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(UserError, match=r"x_8\.npy: another process is building it; wait until it has finished"):
        build_cache(table, file, PLAIN)
    holder.communicate()
    build_cache(table, file, PLAIN)  # the lock file stays, the lock does not


MEMORY_SCRIPT = """
import sys
from pathlib import Path
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.checkpoints.parts import build_preprocessing
from catheters.runs.build import build_table_source
from catheters.config.settings import Settings
settings = Settings(dataset_folder=sys.argv[1], image_size=1024)
build_cache(read_label_table(build_table_source(settings)), Path(sys.argv[2]), build_preprocessing(settings))
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data_set(tmp_path: Path, settings: Settings) -> None:
    """Ten times the images, 420 MB of cache in place of 42: the peak stays where it is."""
    peaks = []
    for times in (1, 10):
        folder = tmp_path / f"times{times}"
        (folder / "train").mkdir(parents=True)
        header, *rows = (Path(settings.dataset_folder) / "train.csv").read_text().splitlines()
        source = Path(settings.dataset_folder) / "train" / f"{rows[0].split(',')[0]}.jpg"
        lines = [f"{number}-{row}" for number in range(times) for row in rows]
        (folder / "train.csv").write_text("\n".join([header, *lines]) + "\n")
        for line in lines:
            shutil.copy(source, folder / "train" / f"{line.split(',')[0]}.jpg")
        done = subprocess.run(
            [sys.executable, "-c", MEMORY_SCRIPT, str(folder), str(tmp_path / f"{times}_1024.npy")],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert peaks[1] - peaks[0] < 30e6, peaks
