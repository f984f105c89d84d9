"""The image cache: content, constant memory, bad images, and refusal of whatever does not match."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.data.cache import CacheError, build_cache, index_file, open_cache
from catheters.data.table import LabelTable, read_label_table
from catheters.errors import UserError
from catheters.settings import Settings

SIZE = 8


@pytest.fixture
def table(tmp_path: Path, rng: np.random.Generator) -> LabelTable:
    """Five PNGs of 16 x 16."""
    paths = tuple(tmp_path / f"{i}.png" for i in range(5))
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (16, 16), dtype=np.uint8))
    return LabelTable(
        uids=np.array([path.stem for path in paths]),
        patient_ids=np.array(["p"] * 5),
        paths=paths,
        labels=np.zeros((5, 1), dtype=np.uint8),
        label_columns=("L",),
    )


def block_means(path: Path) -> np.ndarray:
    """16 x 16 to 8 x 8 in float64: area averaging by definition."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64)
    return image.reshape(8, 2, 8, 2).mean(axis=(1, 3))


def test_content_and_statistics(tmp_path: Path, table: LabelTable) -> None:
    file = tmp_path / "new" / "x_8.npy"
    assert build_cache(table, file, SIZE) == {}
    images = np.load(file, mmap_mode="r")
    assert images.dtype == np.uint8
    assert images.shape == (5, SIZE, SIZE)
    for row, path in enumerate(table.paths):
        assert np.abs(images[row] - block_means(path)).max() <= 0.5
    cache = open_cache(file, table)
    assert cache.mean == pytest.approx(np.asarray(images).mean() / 255, abs=1e-12)
    assert cache.std == pytest.approx(np.asarray(images).std() / 255, abs=1e-12)
    assert not file.with_suffix(".npy.part").exists()


def test_same_sources_same_bytes(tmp_path: Path, table: LabelTable) -> None:
    build_cache(table, tmp_path / "a_8.npy", SIZE)
    build_cache(table, tmp_path / "b_8.npy", SIZE)
    assert (tmp_path / "a_8.npy").read_bytes() == (tmp_path / "b_8.npy").read_bytes()
    first = open_cache(tmp_path / "a_8.npy", table).pixels_hash
    assert open_cache(tmp_path / "b_8.npy", table).pixels_hash == first
    cv2.imwrite(str(table.paths[4]), np.zeros((16, 16), dtype=np.uint8))
    build_cache(table, tmp_path / "b_8.npy", SIZE)
    assert open_cache(tmp_path / "b_8.npy", table).pixels_hash != first


def test_other_images_of_the_same_names_are_refused(tmp_path: Path, table: LabelTable) -> None:
    build_cache(table, tmp_path / "x_8.npy", SIZE)
    other = tmp_path / "other"
    other.mkdir()
    for path in table.paths:
        cv2.imwrite(str(other / path.name), np.zeros((16, 16), dtype=np.uint8))
    moved = dataclasses.replace(table, paths=tuple(other / path.name for path in table.paths))
    with pytest.raises(CacheError, match=r"other/0\.png is not the file that it was made of; run preproc_npy"):
        open_cache(tmp_path / "x_8.npy", moved)


def test_another_data_sets_cache_is_not_overwritten(tmp_path: Path, table: LabelTable) -> None:
    build_cache(table.take(np.array([0, 1])), tmp_path / "x_8.npy", SIZE)
    before = (tmp_path / "x_8.npy").read_bytes()
    with pytest.raises(
        UserError, match=r"is the cache of another data set, with images such as 0; set another cache_name"
    ):
        build_cache(table.take(np.array([2, 3])), tmp_path / "x_8.npy", SIZE)
    assert (tmp_path / "x_8.npy").read_bytes() == before
    build_cache(table, tmp_path / "x_8.npy", SIZE)  # more images of the same data set
    assert len(open_cache(tmp_path / "x_8.npy", table).images) == 5


def test_a_build_that_fails_leaves_no_cache(tmp_path: Path, table: LabelTable) -> None:
    """Neither the old pixels, which no longer match, nor half of the new ones."""
    build_cache(table, tmp_path / "x_8.npy", SIZE)
    (tmp_path / "x_8.npy.part").write_bytes(b"of a build that was killed")
    for path in table.paths:
        path.unlink()
    with pytest.raises(UserError, match="nor could any other"):
        build_cache(table, tmp_path / "x_8.npy", SIZE)
    with pytest.raises(CacheError, match="no such image cache"):
        open_cache(tmp_path / "x_8.npy", table)
    assert not (tmp_path / "x_8.npy.part").exists()


def test_one_bad_image_does_not_end_it(tmp_path: Path, table: LabelTable) -> None:
    table.paths[1].write_bytes(table.paths[1].read_bytes()[:40])
    table.paths[3].unlink()
    failed = build_cache(table, tmp_path / "x_8.npy", SIZE)
    assert set(failed) == {"1", "3"}
    assert failed["3"] == "no such file"
    cache = open_cache(tmp_path / "x_8.npy", table)
    assert cache.failed == failed
    assert not cache.images[1].any()
    good = np.asarray(cache.images)[[0, 2, 4]]
    assert cache.mean == pytest.approx(good.mean() / 255, abs=1e-12)  # black rows do not count


def test_a_mended_image_asks_for_a_new_cache(tmp_path: Path, table: LabelTable) -> None:
    kept = tmp_path / "kept.png"
    table.paths[3].rename(kept)
    build_cache(table, tmp_path / "x_8.npy", SIZE)
    shutil.copy(kept, table.paths[3])
    with pytest.raises(CacheError, match=r"3\.png was missing when the cache was made; run preproc_npy"):
        open_cache(tmp_path / "x_8.npy", table)


def test_no_readable_image_at_all(tmp_path: Path, table: LabelTable) -> None:
    for path in table.paths:
        path.unlink()
    with pytest.raises(UserError, match=r"0\.png: no such file; nor could any other of the 5 X-rays"):
        build_cache(table, tmp_path / "x_8.npy", SIZE)
    assert list(tmp_path.iterdir()) == []


def test_changed_source_is_refused_and_a_missing_one_is_not(tmp_path: Path, table: LabelTable) -> None:
    build_cache(table, tmp_path / "x_8.npy", SIZE)
    table.paths[0].unlink()
    open_cache(tmp_path / "x_8.npy", table)
    os.utime(table.paths[2], ns=(1, 1))
    with pytest.raises(CacheError, match=r"2\.png is not the file that it was made of; run preproc_npy\.py"):
        open_cache(tmp_path / "x_8.npy", table)


def test_other_rows_are_refused(tmp_path: Path, table: LabelTable) -> None:
    build_cache(table.take(np.array([0, 1, 2])), tmp_path / "x_8.npy", SIZE)
    with pytest.raises(CacheError, match="2 images of the label table are not in it, 3 for one"):
        open_cache(tmp_path / "x_8.npy", table)
    with pytest.raises(CacheError, match="fewer rows, or another order"):
        open_cache(tmp_path / "x_8.npy", table.take(np.array([1, 0, 2])))


def test_image_size_that_does_not_match(tmp_path: Path, table: LabelTable) -> None:
    build_cache(table, tmp_path / "x_8.npy", SIZE)
    with pytest.raises(CacheError, match=r"x_16\.npy: no such image cache .*holds x_8\.npy: set image_size"):
        open_cache(tmp_path / "x_16.npy", table)
    # Renamed by hand: the content gives it away.
    np.save(tmp_path / "x_8.npy", np.zeros((5, 16, 16), dtype=np.uint8))
    with pytest.raises(CacheError, match=r"holds \(5, 16, 16\), its index says \(5, 8, 8\)"):
        open_cache(tmp_path / "x_8.npy", table)


def test_damage_is_refused(tmp_path: Path, table: LabelTable) -> None:
    file = tmp_path / "x_8.npy"
    build_cache(table, file, SIZE)
    content = json.loads(index_file(file).read_text())
    for text, message in [
        ("{", "damaged"),
        (json.dumps({**content, "mean": 0.5}), "changed by hand or damaged"),
        (json.dumps({**content, "format_version": 99}), "format 99"),
    ]:
        index_file(file).write_text(text)
        with pytest.raises(CacheError, match=message):
            open_cache(file, table)
    index_file(file).write_text(json.dumps(content))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CacheError, match="damaged"):
        open_cache(file, table)
    index_file(file).unlink()
    with pytest.raises(CacheError, match="no such image cache"):
        open_cache(file, table)


def test_disk_without_room(tmp_path: Path, table: LabelTable) -> None:
    with pytest.raises(UserError, match=r"the cache needs 5000000000\.0 GB"):
        build_cache(table, tmp_path / "x.npy", 10**9)


MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
from catheters.data.cache import build_cache
from catheters.data.table import read_label_table
from catheters.settings import Settings
settings = Settings(dataset_folder=sys.argv[1], image_size=1024)
build_cache(read_label_table(settings), Path(sys.argv[2]), 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
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
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 30e6, peaks


def test_label_table_of_the_sample(settings: Settings) -> None:
    table = read_label_table(dataclasses.replace(settings, image_size=16))
    build_cache(table, settings.cache_file, 16)
    cache = open_cache(settings.cache_file, table)
    assert 0.2 < cache.mean < 0.8
    assert cache.std > 0.05
