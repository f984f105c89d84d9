"""The image cache: content, and refusal of whatever does not match."""

import dataclasses
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache import cache as cache_module
from catheters.data.cache.cache import CacheError, CacheFile, ImageCache, index_file, open_cache
from catheters.data.cache.writer import build_cache
from catheters.data.preprocessing import Preprocessing
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import UserError
from catheters.runs.build import build_table_source

PLAIN = Preprocessing(image_shape=(8, 8))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "x_8.npy"


def build_and_open(table: LabelTable, file: Path, preprocessing: Preprocessing = PLAIN) -> ImageCache:
    build_cache(table, file, preprocessing)
    return open_cache(file, table, preprocessing)


def block_means(path: Path) -> np.ndarray:
    """16 x 16 to 8 x 8 in float64: area averaging by definition."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64)
    return image.reshape(8, 2, 8, 2).mean(axis=(1, 3))


def test_content_and_statistics(file: Path, table: LabelTable) -> None:
    cache = build_and_open(table, file)
    images = np.load(file, mmap_mode="r")
    assert images.dtype == np.uint8
    assert images.shape == (5, 8, 8)
    for row, path in enumerate(table.paths):
        assert np.abs(images[row] - block_means(path)).max() <= 0.5
    assert cache.mean == pytest.approx(np.asarray(images).mean() / 255, abs=1e-12)
    assert cache.std == pytest.approx(np.asarray(images).std() / 255, abs=1e-12)
    assert cache.failed == {}
    assert cache.quality_flags == {}
    assert sorted(path.name for path in file.parent.iterdir()) == ["x_8.json", "x_8.lock", "x_8.npy"]
    entry = cache.entries[3]
    assert (entry.uid, entry.file, entry.size) == ("3", str(table.paths[3]), table.paths[3].stat().st_size)
    assert (entry.full_shape, entry.box) == ((16, 16), (0, 0, 16, 16))


def test_a_size_that_is_not_square(file: Path, table: LabelTable) -> None:
    cache = build_and_open(table, file, Preprocessing(image_shape=(4, 16)))
    assert cache.images.shape == (5, 4, 16)
    rows = cv2.imread(str(table.paths[2]), cv2.IMREAD_UNCHANGED).reshape(4, 4, 16).mean(axis=1)
    assert np.abs(cache.images[2] - rows).max() <= 0.5


def test_the_index_is_json_that_others_can_read(file: Path, table: LabelTable) -> None:
    table.paths[1].unlink()
    cache = build_and_open(table, file)
    content = json.loads(index_file(file).read_text())["content"]
    assert content["shape"] == [5, 8, 8]
    assert [row["uid"] for row in content["rows"]] == table.uids.tolist()
    assert content["rows"][1]["reason"] == "no such file"
    assert content["mean"] == cache.mean


def test_a_part_of_the_table_in_another_order(file: Path, table: LabelTable) -> None:
    """The rows are found by their uids; mean and hash are those of the images that are asked for."""
    whole = build_and_open(table, file)
    part = open_cache(file, table.take(np.array([3, 0])), PLAIN)
    assert part.rows.tolist() == [3, 0]
    assert [entry.uid for entry in part.entries] == ["3", "0"]
    assert part.mean == pytest.approx(np.asarray(whole.images)[[3, 0]].mean() / 255, abs=1e-12)
    assert part.pixels_hash != whole.pixels_hash
    with pytest.raises(CacheError, match="1 images of the label table are not in it, 9 for one"):
        open_cache(file, dataclasses.replace(table, uids=np.array(["0", "1", "2", "3", "9"])), PLAIN)


def test_same_pixels_same_hash(tmp_path: Path, table: LabelTable) -> None:
    first = build_and_open(table, tmp_path / "a_8.npy").pixels_hash
    assert build_and_open(table, tmp_path / "b_8.npy").pixels_hash == first
    cv2.imwrite(str(table.paths[4]), np.zeros((16, 16), dtype=np.uint8))
    assert build_and_open(table, tmp_path / "b_8.npy").pixels_hash != first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"resize": "pad"}, r"was made with resize='stretch', the settings say 'pad'"),
        ({"crop_borders": True}, "was made with crop_borders=False, the settings say True"),
        ({"inverted": "exclude"}, "was made with inverted='keep', the settings say 'exclude'"),
        ({"image_shape": (8, 16)}, r"was made with image_size=\[8, 8\], the settings say \[8, 16\]"),
    ],
)
def test_other_preprocessing_is_refused(
    file: Path, table: LabelTable, changed: dict[str, object], message: str
) -> None:
    build_cache(table, file, PLAIN)
    with pytest.raises(CacheError, match=f"{message}; set .* to use it as it is, or run preproc_npy"):
        open_cache(file, table, dataclasses.replace(PLAIN, **changed))


def test_changed_source_is_refused_and_a_missing_one_is_not(file: Path, table: LabelTable) -> None:
    build_cache(table, file, PLAIN)
    table.paths[0].unlink()
    open_cache(file, table, PLAIN)
    os.utime(table.paths[2], ns=(1, 1))
    with pytest.raises(CacheError, match=r"2\.png has another time of change .* it may have changed; run preproc_npy"):
        open_cache(file, table, PLAIN)
    table.paths[2].write_bytes(table.paths[2].read_bytes() + b"\0")
    with pytest.raises(CacheError, match=r"2\.png is not the file that it was made of: \d+ bytes, not \d+; run"):
        open_cache(file, table, PLAIN)


def test_other_images_of_the_same_names_are_refused(file: Path, tmp_path: Path, table: LabelTable) -> None:
    build_cache(table, file, PLAIN)
    other = tmp_path / "other"
    other.mkdir()
    for path in table.paths:
        cv2.imwrite(str(other / path.name), np.zeros((16, 16), dtype=np.uint8))
    moved = dataclasses.replace(table, paths=tuple(other / path.name for path in table.paths))
    with pytest.raises(CacheError, match=r"other/0\.png is not the file that it was made of"):
        open_cache(file, moved, PLAIN)


def test_a_mended_image_asks_for_a_new_cache(file: Path, table: LabelTable) -> None:
    content = table.paths[3].read_bytes()
    table.paths[3].unlink()
    build_cache(table, file, PLAIN)
    table.paths[3].write_bytes(content)
    with pytest.raises(CacheError, match=r"3\.png was missing when the cache was made; run preproc_npy"):
        open_cache(file, table, PLAIN)


def test_image_size_that_does_not_match(file: Path, table: LabelTable) -> None:
    build_cache(table, file, PLAIN)
    with pytest.raises(CacheError, match=r"x_16\.npy: no such image cache .*holds x_8\.npy: set image_size"):
        open_cache(file.with_name("x_16.npy"), table, PLAIN)
    # Renamed by hand: the content gives it away.
    np.save(file, np.zeros((5, 16, 16), dtype=np.uint8))
    with pytest.raises(CacheError, match=r"holds uint8 \(5, 16, 16\), its index says uint8 \(5, 8, 8\)"):
        open_cache(file, table, PLAIN)


def test_damage_is_refused(file: Path, table: LabelTable) -> None:
    build_cache(table, file, PLAIN)
    text = index_file(file).read_text()
    for damaged, message in [
        ("{", "damaged"),
        (text.replace('"size":', '"size":1', 1), "changed by hand or damaged"),
        (text[:-300], "changed by hand or damaged"),
        ('{"fingerprint": "x", "format_version": 1, "shape": [5, 8, 8]}', "made by an earlier version"),
    ]:
        index_file(file).write_text(damaged)
        with pytest.raises(CacheError, match=message):
            open_cache(file, table, PLAIN)
    index_file(file).write_bytes(b"\xff\xfe")
    with pytest.raises(CacheError, match="damaged"):
        open_cache(file, table, PLAIN)
    index_file(file).write_text(text)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CacheError, match="damaged"):
        open_cache(file, table, PLAIN)
    file.write_bytes(b"")
    with pytest.raises(CacheError, match="damaged"):
        open_cache(file, table, PLAIN)
    index_file(file).unlink()
    with pytest.raises(CacheError, match=r"has no index, x_8\.json; it is being made, or its making was interrupted"):
        open_cache(file, table, PLAIN)
    file.unlink()
    with pytest.raises(CacheError, match="no such image cache"):
        open_cache(file, table, PLAIN)


def test_damaged_pixels_are_noticed_and_mended(file: Path, table: LabelTable) -> None:
    build_cache(table, file, PLAIN)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CacheError, match="damaged: the pixels of 4 are not those that were written; run preproc_npy"):
        open_cache(file, table, PLAIN)
    build_cache(table, file, PLAIN)
    assert file.read_bytes() == content


def test_rows_of_another_file_are_not_read(file: Path, table: LabelTable) -> None:
    """One that took the name after the check, even with the same content: its rows may be others."""
    checked = build_and_open(table, file).file
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.replace(file)
    for read in (checked.load, checked.open_rows):
        with pytest.raises(CacheError, match=r"was rebuilt meanwhile, and its rows may be others; run preproc_npy"):
            read()


def test_a_cache_that_is_the_last_of_its_x_rays_is_not_replaced(file: Path, table: LabelTable) -> None:
    build_cache(table, file, PLAIN)
    content = file.read_bytes()
    table.paths[1].unlink()
    with pytest.raises(UserError, match="1 of its X-rays are gone, 1 for one, and could not be rebuilt; set another"):
        build_cache(table, file, dataclasses.replace(PLAIN, resize="pad"))
    assert file.read_bytes() == content


def test_label_table_of_the_sample(settings: Settings) -> None:
    settings = dataclasses.replace(settings, image_size=16)
    cache = build_and_open(
        read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings)
    )
    assert 0.2 < cache.mean < 0.8
    assert cache.std > 0.05
    assert cache.quality_flags == {}


def test_a_file_elsewhere_of_the_same_size_and_time_is_refused(file: Path, tmp_path: Path, table: LabelTable) -> None:
    """Raw DICOM files are all of one size, and archives give all files one time."""
    build_cache(table, file, PLAIN)
    other = tmp_path / "other"
    other.mkdir()
    for path in table.paths:
        content, state = path.read_bytes(), path.stat()
        (other / path.name).write_bytes(content[:-40] + bytes(40))
        os.utime(other / path.name, ns=(state.st_atime_ns, state.st_mtime_ns))
    moved = dataclasses.replace(table, paths=tuple(other / path.name for path in table.paths))
    with pytest.raises(CacheError, match=r"other/0\.png is another file than .*sources/0\.png, which it was made of"):
        open_cache(file, moved, PLAIN)
    with pytest.raises(UserError, match="nor could any other"):  # nothing of the earlier cache is taken over
        build_cache(moved, file, PLAIN)


def test_x_rays_that_are_gone_are_counted(file: Path, table: LabelTable) -> None:
    assert build_and_open(table, file).num_absent == 0
    table.paths[0].unlink()
    table.paths[4].unlink()
    assert open_cache(file, table, PLAIN).num_absent == 2


def test_an_index_that_changes_while_it_is_opened(
    file: Path, table: LabelTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finishes a build between reading the index and opening the pixels."""
    build_cache(table, file, PLAIN)
    load = CacheFile.load

    def load_after_another_build(cache_file: CacheFile) -> np.ndarray:
        cv2.imwrite(str(table.paths[0]), np.zeros((16, 16), dtype=np.uint8))
        build_cache(table, file, PLAIN)
        return load(dataclasses.replace(cache_file, identity=cache_module._identity(file.stat())))

    monkeypatch.setattr(CacheFile, "load", load_after_another_build)
    with pytest.raises(CacheError, match="is being rebuilt by another process"):
        open_cache(file, table, PLAIN)
