"""What the machine lacks is never called the image's damage: the command fails with the machine's error."""

import errno
import io
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pydicom.pixels.decoders.rle
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from catheters.data.cache.index import source_state
from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import decode_radiograph, read_file
from tests.conftest import REPOSITORY, assert_user_error
from tests.data.decoding.test_dicom import RAMP, make_dicom

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
SCRIPT = """
import runpy, sys, tempfile
tempfile.tempdir = sys.argv[1]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def contents() -> dict[str, bytes]:
    """Whole files of the kinds whose decoders are listened to."""
    files = {"dcm": make_dicom(RAMP, ExplicitVRLittleEndian, BitsStored=12, HighBit=11)}
    for kind in ("PNG", "TIFF", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(GREY).save(file, kind)
        files[kind] = file.getvalue()
    return files


@pytest.mark.parametrize("kind", ["dcm", "PNG", "TIFF", "WEBP"])
def test_no_temporary_folder(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = contents()[kind]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="gone") as error:
        decode_radiograph(data)
    assert error.value.errno == errno.ENOENT


@pytest.mark.parametrize("kind", ["dcm", "PNG", "TIFF", "WEBP"])
def test_no_more_open_files(kind: str) -> None:
    data = contents()[kind]
    decode_radiograph(data)  # whatever is imported for it is
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as error:
            decode_radiograph(data)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert error.value.errno == errno.EMFILE


def test_damage_without_an_errno_stays_the_images() -> None:
    with pytest.raises(UnreadableImage, match="damaged"):
        decode_radiograph(contents()["TIFF"][:100])


def test_a_disk_that_fails() -> None:
    """Linux answers EIO to whoever reads the start of its own memory."""
    with pytest.raises(OSError, match="Input/output error") as error:
        read_file(Path("/proc/self/mem"))
    assert (error.value.errno, error.value.filename) == (errno.EIO, "/proc/self/mem")


def test_paths_that_are_refused_are_the_images_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(UnreadableImage):
            read_file(path)
        assert source_state(path) == (-1, -1)


def test_a_file_of_which_the_machine_cannot_tell_is_not_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a network's disk whose server has forgotten it: the cache would keep its row as that of a lost X-ray."""

    def forget(*_: object, **__: object) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", forget)
        with pytest.raises(OSError, match="Stale file handle"):
            source_state(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["preproc_npy.py", "predict.py"])
def test_a_command_ends_with_one_line(script: str, tmp_path: Path, evaluated_run: Path) -> None:
    (tmp_path / "train").mkdir()
    for uid in ("a", "b"):
        cv2.imwrite(str(tmp_path / "train" / f"{uid}.png"), GREY)
    (tmp_path / "train.csv").write_text("StudyInstanceUID,PatientID,L\na,p,0\nb,q,1\n")
    table = [
        "path_pattern=train/{uid}.png",
        "label_columns=['L']",
        "pos_weight={}",
        "heads={}",
        "lines=None",
        "image_size=32",
    ]
    arguments = {
        "preproc_npy.py": [f"dataset_folder={tmp_path}", f"cache_folder={tmp_path / 'cache'}", *table],
        "predict.py": ["--model", str(evaluated_run), str(tmp_path / "train"), "--out", str(tmp_path / "out.csv")],
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "gone"), str(REPOSITORY / script), *arguments[script]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert_user_error(done, str(tmp_path / "gone"), "No such file or directory")
    assert not (tmp_path / "out.csv").exists()


def test_no_memory_inside_a_plugin_of_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydicom reports whatever its plugins raise as a RuntimeError."""
    whole = make_dicom(RAMP, ExplicitVRLittleEndian, BitsStored=12, HighBit=11)
    dataset = pydicom.dcmread(io.BytesIO(whole))
    dataset.compress(RLELossless)
    file = io.BytesIO()
    dataset.save_as(file)
    assert np.array_equal(decode_radiograph(file.getvalue()).image, decode_radiograph(whole).image)

    def find_no_memory(*_: object) -> bytes:
        raise MemoryError("Unable to allocate 1 GiB")

    monkeypatch.setattr(pydicom.pixels.decoders.rle, "_rle_decode_frame", find_no_memory)
    with pytest.raises(MemoryError, match="Unable to allocate 1 GiB"):
        decode_radiograph(file.getvalue())
