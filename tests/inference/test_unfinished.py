"""What an unfinished prediction has done, and what of it is taken over."""

import json
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from catheters.errors import UserError
from catheters.inference.batch_prediction import Predictions, predict_images
from catheters.inference.inputs import Images
from catheters.inference.predictor import Predictor
from catheters.inference.unfinished import Entry, decode_entry, encode_entry, file_state
from tests.inference.conftest import make_checkpoint, make_models

NUM_IMAGES = 5
SHAPE = (2, 11)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(make_models(make_checkpoint(0), make_checkpoint(1)), torch.device("cpu"))


@pytest.fixture
def images(tmp_path: Path) -> Images:
    for number in range(NUM_IMAGES):
        draw(tmp_path / f"{number}.png", number)
    paths = tuple(tmp_path / f"{number}.png" for number in range(NUM_IMAGES))
    return Images(uids=tuple(path.stem for path in paths), paths=paths)


def draw(file: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    cv2.imwrite(str(file), cv2.resize(noise, (150, 150), interpolation=cv2.INTER_CUBIC))


def run(predictor: Predictor, images: Images, part: Path) -> Predictions:
    return predict_images(predictor, images, part, batch_size=2, num_workers=1, key="models")


def lines_of(part: Path) -> list[bytes]:
    return part.read_bytes().splitlines(keepends=True)


def framed(content: object) -> bytes:
    """A line with a right checksum."""
    text = json.dumps(content).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def test_an_image_that_was_replaced_is_predicted_again(
    predictor: Predictor, images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "p.unfinished"
    before = run(predictor, images, part)
    draw(images.paths[0], 99)
    os.utime(images.paths[0], ns=(0, 12345))  # even where a copy keeps an old time
    images.paths[1].unlink()
    capsys.readouterr()
    after = run(predictor, images, part)
    out = capsys.readouterr().out
    assert "3 of 5 images were predicted before" in out
    assert "2 of them have changed since they were predicted, and are predicted again" in out
    fresh = run(predictor, images, tmp_path / "q.unfinished")
    for predictions in (after, fresh):
        assert (predictions.probabilities[:, 2:] == before.probabilities[:, 2:]).all()
        assert np.abs(predictions.probabilities[:, 0] - before.probabilities[:, 0]).max() > 0.01
        assert np.isnan(predictions.probabilities[:, 1]).all() and predictions.reasons[1]
    assert (after.probabilities[:, 0] == fresh.probabilities[:, 0]).all()
    # A third time all are taken over: of two lines of one image the newer counts, a missing file is still missing.
    again = run(predictor, images, part)
    assert "5 of 5 images were predicted before" in capsys.readouterr().out
    assert np.array_equal(again.probabilities, after.probabilities, equal_nan=True)
    assert again.reasons == after.reasons
    draw(images.paths[1], 1)
    restored = run(predictor, images, part)
    assert restored.reasons == ("",) * 5
    assert restored.probabilities[:, 1] == pytest.approx(before.probabilities[:, 1], abs=1e-6)


def test_a_flipped_bit_ends_the_part(predictor: Predictor, images: Images, tmp_path: Path) -> None:
    part = tmp_path / "p.unfinished"
    before = run(predictor, images, part)
    lines = lines_of(part)
    position = lines[2].index(b'"probabilities": [[0.') + len(b'"probabilities": [[0.')
    flipped = bytearray(lines[2])
    flipped[position] ^= 1  # another digit
    part.write_bytes(b"".join([*lines[:2], bytes(flipped), *lines[3:]]))
    after = run(predictor, images, part)
    assert lines_of(part)[:2] == lines[:2]
    assert bytes(flipped) not in part.read_bytes()
    assert after.probabilities == pytest.approx(before.probabilities, abs=1e-6)


def entry(**changes: object) -> dict[str, object]:
    """What a line holds."""
    probabilities = np.full(SHAPE, 0.25).tolist()
    return {
        "row": 1,
        "state": [7, 8],
        "reason": None,
        "quality_flags": ["odd"],
        "probabilities": probabilities,
        "distances": [0.5, None],
        "image_hash": "0f" * 32,
    } | changes


def with_probability(value: object) -> dict[str, object]:
    rows: list[list[object]] = np.full(SHAPE, 0.25).tolist()
    rows[1][3] = value
    return entry(probabilities=rows)


@pytest.mark.parametrize(
    "line",
    [
        *(framed(entry(row=row)) for row in (999, NUM_IMAGES, -1, 1.0, True, "1", None)),
        *(framed(with_probability(value)) for value in (7, -0.1, 1.5, "0.5", None, True, float("nan"), float("inf"))),
        *(framed(content) for content in ([1], {"row": 0}, 3, entry(extra=1), entry(probabilities=None))),
        *(framed(entry(probabilities=rows)) for rows in ([], [[0.5] * 11], [[0.5] * 10] * 2, [0.5, 0.5], 0.5)),
        *(framed(entry(distances=values)) for values in (None, [0.5], [0.5, -1.0], [0.5, "1"], [0.5, float("nan")])),
        *(framed(entry(image_hash=text)) for text in (None, "", "0f" * 31, "0g" * 32)),
        *(framed(entry(reason=reason)) for reason in ("", 1, "with probabilities")),
        *(framed(entry(quality_flags=quality_flags)) for quality_flags in (None, "text", [1])),
        *(framed(entry(state=state)) for state in ([1], [1, 2.0], "x", [1, 2, 3])),
        framed(entry())[:-1],
        framed(entry())[1:],
        framed(entry())[9:],
        b"00000000 {}\n",
        b"\xff\xfe\n",
        b"\n",
        framed(entry()).replace(b"0.25", b"0.75", 1),
        b'{"row": 1, "reason": null, "quality_flags": [], "probabilities": [[0.5]]}\n',
    ],
)
def test_foreign_lines(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_entry(line, NUM_IMAGES, SHAPE)


def test_a_foreign_line_ends_the_part(predictor: Predictor, images: Images, tmp_path: Path) -> None:
    part = tmp_path / "p.unfinished"
    before = run(predictor, images, part)
    lines = lines_of(part)
    for foreign in (framed(entry(row=999)), framed([1]), with_nan()):
        part.write_bytes(b"".join([*lines[:3], foreign, *lines[3:]]))
        after = run(predictor, images, part)
        assert after.probabilities == pytest.approx(before.probabilities, abs=1e-6)
        assert foreign not in part.read_bytes()
    part.write_bytes(b"another head\n")
    with pytest.raises(UserError, match="an unfinished command with other images"):
        run(predictor, images, part)


def with_nan() -> bytes:
    return framed(with_probability(float("nan")))


def test_written_and_read_back(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(0, 1_700_000_000_123_456_789))
    state = file_state(tmp_path / "a")
    assert state == (3, 1_700_000_000_123_456_789)
    assert file_state(tmp_path / "b") is None
    distances, image_hash = np.array([1 / 3, np.nan]), bytes(range(32))
    written = Entry(
        row=4,
        state=state,
        reason=None,
        quality_flags=("é", "b"),
        probabilities=probabilities,
        distances=distances,
        image_hash=image_hash,
    )
    read = decode_entry(encode_entry(written), 5, SHAPE)
    assert (read.row, read.state, read.reason, read.quality_flags) == (4, state, None, ("é", "b"))
    assert read.probabilities is not None and (read.probabilities == probabilities).all()
    assert np.array_equal(read.distances, distances, equal_nan=True) and read.image_hash == image_hash
    failed = Entry(row=0, state=None, reason="gone")
    assert decode_entry(encode_entry(failed), 5, SHAPE) == failed
