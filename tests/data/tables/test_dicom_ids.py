"""DICOM files found by the ids in their headers: real ones, ambiguous ones, broken ones, and what is kept."""

import dataclasses
import errno
import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset

from catheters.config.settings import Settings
from catheters.data.decoding.header import MAX_INFLATED_BYTES
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.io.csv_files import TableError
from catheters.runs.build import build_table_source
from tests.conftest import SHARED_DATA

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"


def write_dicom(file: Path, view: str | None = None, **values: str) -> None:
    """A header without pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE_ENDIAN
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    with warnings.catch_warnings(action="ignore"):  # values that archives hold in spite of the standard
        if view is not None:
            dataset.ViewPosition = view
        dataset.save_as(file, enforce_file_format=True)


def preamble(transfer_syntax: str) -> bytes:
    """What stands before the data set of a hand-made file."""
    value = transfer_syntax.encode() + b"\0" * (len(transfer_syntax) % 2)
    return b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI" + struct.pack("<H", len(value)) + value


@pytest.fixture
def archive(tmp_path: Path) -> Settings:
    """A table of two studies, and settings that seek them by StudyInstanceUID."""
    (tmp_path / "labels.csv").write_text("study,who,tube\n1.1,a,1\n1.2,b,0\n")
    return Settings(
        dataset_folder=str(tmp_path),
        label_table="labels.csv",
        uid_column="study",
        patient_column="who",
        label_columns=("tube",),
        dicom_id="StudyInstanceUID",
        path_pattern="export/**/*",
        cache_folder=str(tmp_path / "cache"),
        cache_name="mine",
    )


def files_of(table: LabelTable, settings: Settings) -> list[str]:
    return [path.relative_to(settings.dataset_folder).as_posix() for path in table.paths]


def read_files(settings: Settings) -> list[str]:
    return files_of(read_label_table(build_table_source(settings)), settings)


def kept_file(settings: Settings) -> Path:
    return Path(settings.cache_folder) / "mine_dicom_ids.json"


def test_files_are_found_by_their_headers(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(archive.dataset_folder)
    write_dicom(folder / "export" / "a" / "b" / "IM0001", StudyInstanceUID="1.2")
    write_dicom(folder / "export" / "7.dcm", StudyInstanceUID="1.1")
    write_dicom(folder / "export" / "other", StudyInstanceUID="1.3")
    write_dicom(folder / "elsewhere" / "8.dcm", StudyInstanceUID="1.1")
    assert read_files(archive) == ["export/7.dcm", "export/a/b/IM0001"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "warning" not in captured.err
    assert read_files(dataclasses.replace(archive, path_pattern="elsewhere/*.dcm")) == [
        "elsewhere/8.dcm",
        "no file with StudyInstanceUID 1.2",
    ]


def test_links_to_nowhere_are_named(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """An archive whose disk is not mounted would else look like one without the studies."""
    export = Path(archive.dataset_folder) / "export"
    export.mkdir()
    for number in range(6):
        (export / f"link{number}").symlink_to(f"/not mounted/{number}")
    named = ", ".join(f"export/link{number} (a link to /not mounted/{number})" for number in range(5))
    warning = f"warning: path_pattern='export/**/*': passed over, as they lead to no file: {named} and 1 more\n"
    with pytest.raises(TableError, match="matches no file in it"):
        read_label_table(build_table_source(archive))
    assert capsys.readouterr().err == warning
    write_dicom(export / "a", StudyInstanceUID="1.1")
    (export / "link to a").symlink_to("a")
    for number in range(1, 6):
        (export / f"link{number}").unlink()
    (export / "link0").unlink()
    (export / "link0").symlink_to("link0")
    assert read_files(archive)[0] == "export/a"
    warnings_given = [line for line in capsys.readouterr().err.splitlines() if "no file: " in line]
    assert warnings_given == [f"{warning.partition('no file: ')[0]}no file: export/link0 (a link to link0)"]


def test_a_file_that_the_machine_cannot_read_is_not_passed_over(archive: Settings) -> None:
    """Linux answers EIO, as a failing disk does, to whoever reads the start of its own memory."""
    export = Path(archive.dataset_folder) / "export"
    write_dicom(export / "1", StudyInstanceUID="1.1")
    (export / "2").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error") as error:
        read_files(archive)
    assert (error.value.errno, error.value.filename) == (errno.EIO, str(export / "2"))


def test_other_keywords(archive: Settings) -> None:
    folder = Path(archive.dataset_folder)
    write_dicom(folder / "export" / "x", AccessionNumber="1.2 ", StudyInstanceUID="1.1")
    assert read_files(dataclasses.replace(archive, dicom_id="AccessionNumber"))[1] == "export/x"


def test_other_files_are_passed_over_and_counted(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    export = Path(archive.dataset_folder) / "export"
    write_dicom(export / "1", StudyInstanceUID="1.1")
    write_dicom(export / "2", StudyInstanceUID="1.2")
    write_dicom(export / "no id", AccessionNumber="1.1")
    whole = (export / "1").read_bytes()
    (export / "cut").write_bytes(whole[: len(whole) // 2])
    (export / "empty").touch()
    (export / "read me.txt").write_text("1.1")
    nested = struct.pack("<HH", 8, 0x1140) + b"SQ\0\0" + struct.pack("<I", 0xFFFFFFFF)
    nested += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    (export / "nested").write_bytes(preamble(EXPLICIT_LITTLE_ENDIAN) + nested * 20_000)
    assert read_files(archive) == ["export/1", "export/2"]
    message = (
        "5 of 7 files of path_pattern='export/**/*' are passed over: no DICOM files, or without StudyInstanceUID\n"
    )
    assert capsys.readouterr().out == message
    assert read_files(archive) == ["export/1", "export/2"]
    assert capsys.readouterr().out == message


@pytest.mark.slow
def test_deflated_headers_are_read_unless_they_fill_the_memory(archive: Settings) -> None:
    export = Path(archive.dataset_folder) / "export"
    write_dicom(export / "1", StudyInstanceUID="1.1")
    element = struct.pack("<HH", 0x20, 0xD) + b"UI" + struct.pack("<H", 4) + b"1.2\0"
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    small = deflater.compress(element) + deflater.flush()
    (export / "2").write_bytes(preamble(DEFLATED) + small)
    assert read_files(archive) == ["export/1", "export/2"]
    deflater = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
    big = deflater.compress(element)
    for _ in range(MAX_INFLATED_BYTES // 2**20 + 1):
        big += deflater.compress(bytes(2**20))
    (export / "2").write_bytes(preamble(DEFLATED) + big + deflater.flush())
    assert read_files(archive) == ["export/1", "no file with StudyInstanceUID 1.2"]


def test_lateral_views_are_left_aside(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    export = Path(archive.dataset_folder) / "export"
    write_dicom(export / "1", "LL", StudyInstanceUID="1.1")
    write_dicom(export / "2", "PA", StudyInstanceUID="1.1")
    write_dicom(export / "3", "lateral", StudyInstanceUID="1.1")
    write_dicom(export / "4", "Rld", StudyInstanceUID="1.2")  # all there is
    assert read_files(archive) == ["export/2", "export/4"]
    assert "warning" not in capsys.readouterr().err


def test_several_files_of_an_id_are_warned_of(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    export = Path(archive.dataset_folder) / "export"
    for name, uid in (("b", "1.1"), ("a/z", "1.1"), ("c", "1.2"), ("d", "1.2"), ("e", "1.9"), ("f", "1.9")):
        write_dicom(export / name, StudyInstanceUID=uid)
    write_dicom(export / "0", "LAT", StudyInstanceUID="1.1")
    assert read_files(archive) == ["export/a/z", "export/c"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        f"warning: 2 ids in column study of {Path(archive.dataset_folder) / 'labels.csv'} have several files, of which "
        "the first is taken; 1.1 for one: export/a/z, export/b"
    ]
    for k in range(5):
        write_dicom(export / f"b{k}", StudyInstanceUID="1.1")
    read_label_table(build_table_source(archive))
    assert "export/a/z, export/b, export/b0, export/b1, export/b2 and 2 more\n" in capsys.readouterr().err


def test_no_id_is_found(archive: Settings) -> None:
    folder = Path(archive.dataset_folder)
    with pytest.raises(TableError, match=r"path_pattern='export/\*\*/\*' matches no file in it"):
        read_label_table(build_table_source(archive))
    (folder / "export").mkdir()
    (folder / "export" / "x.txt").touch()
    with pytest.raises(TableError) as error:
        read_label_table(build_table_source(archive))
    assert str(error.value).endswith(
        "none of the 1 files of path_pattern='export/**/*' has a StudyInstanceUID that is an id in column study of "
        f"{folder / 'labels.csv'}, where an id looks like 1.1"
    )
    write_dicom(folder / "export" / "y", StudyInstanceUID="9.9")
    with pytest.raises(TableError, match=r"where an id looks like 1\.1; a file's looks like '9\.9' \(export/y\)$"):
        read_label_table(build_table_source(archive))


def test_an_id_in_another_form_is_named(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(archive.dataset_folder)
    archive = dataclasses.replace(archive, dicom_id="AccessionNumber")
    (folder / "labels.csv").write_text("study,who,tube\n7.0,a,1\n8.0,b,0\n9,c,0\n")
    write_dicom(folder / "export" / "x", AccessionNumber="0007")
    with pytest.raises(TableError, match=r"a file's looks like '0007' \(export/x\); 7\.0 and 0007 differ only in"):
        read_label_table(build_table_source(archive))
    write_dicom(folder / "export" / "y", AccessionNumber="9")
    assert read_files(archive)[1:] == ["no file with AccessionNumber 8.0", "export/y"]
    assert "warning: 2 of 3 ids in column study of" in (err := capsys.readouterr().err)
    assert "have no file with this AccessionNumber; 7.0 and 0007 differ only in their form" in err
    (folder / "labels.csv").write_text("study,who,tube\n8,a,1\n9,b,0\n")
    assert read_files(archive) == ["no file with AccessionNumber 8", "export/y"]
    assert "warning" not in capsys.readouterr().err  # the cache's list of unreadable X-rays says it


def test_what_was_read_is_kept(archive: Settings) -> None:
    export = Path(archive.dataset_folder) / "export"
    write_dicom(export / "1", "PA", StudyInstanceUID="1.1")
    write_dicom(export / "2", StudyInstanceUID="1.2")
    assert read_files(archive) == ["export/1", "export/2"]
    kept = json.loads(kept_file(archive).read_text())
    state = (export / "1").stat()
    assert kept["dicom_id"] == "StudyInstanceUID"
    assert kept["files"]["export/1"] == [state.st_size, state.st_mtime_ns, "1.1", "PA"]
    # Files of unchanged size and time are not opened again: other content under the same ones is not seen,
    (export / "1").write_bytes(b"x" * state.st_size)
    os.utime(export / "1", ns=(state.st_mtime_ns, state.st_mtime_ns))
    assert read_files(archive) == ["export/1", "export/2"]
    # and is as soon as the time has changed.
    os.utime(export / "1", ns=(state.st_mtime_ns, state.st_mtime_ns + 1))
    assert read_files(archive) == ["no file with StudyInstanceUID 1.1", "export/2"]
    write_dicom(export / "3", StudyInstanceUID="1.1")
    (export / "2").unlink()
    assert read_files(archive) == ["export/3", "no file with StudyInstanceUID 1.2"]
    assert sorted(json.loads(kept_file(archive).read_text())["files"]) == ["export/1", "export/3"]


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"dicom_id": "StudyInstanceUID"}',
        '{"dicom_id": "StudyInstanceUID", "path_pattern": "", "files": {"export/1": [1, 2]}}',
        '{"dicom_id": "StudyInstanceUID", "path_pattern": "", "files": {"export/1": [SIZE, TIME, 7, "PA"]}}',
        '{"dicom_id": "SOPInstanceUID", "path_pattern": "", "files": {"export/1": [SIZE, TIME, "9.9", "PA"]}}',
    ],
)
def test_what_is_kept_is_ignored_where_it_is_damaged_or_of_another_id(archive: Settings, damage: str) -> None:
    export = Path(archive.dataset_folder) / "export"
    write_dicom(export / "1", "PA", StudyInstanceUID="1.1")
    state = (export / "1").stat()
    kept_file(archive).parent.mkdir()
    kept_file(archive).write_text(damage.replace("SIZE", str(state.st_size)).replace("TIME", str(state.st_mtime_ns)))
    assert read_files(archive)[0] == "export/1"
    assert json.loads(kept_file(archive).read_text())["files"]["export/1"][2] == "1.1"


def test_a_cache_may_travel_without_its_files(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    export = Path(archive.dataset_folder) / "export"
    write_dicom(export / "1", StudyInstanceUID="1.1")
    write_dicom(export / "2", StudyInstanceUID="1.2")
    before = read_label_table(build_table_source(archive)).paths
    shutil.rmtree(export)
    assert read_label_table(build_table_source(archive)).paths == before
    assert "no file is left of path_pattern='export/**/*'; " in capsys.readouterr().out
    with pytest.raises(TableError, match="matches no file"):  # a pattern that was never read is a mistake
        read_label_table(build_table_source(dataclasses.replace(archive, path_pattern="exports/**/*")))


def test_a_folder_that_cannot_be_written_is_warned_of(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    write_dicom(Path(archive.dataset_folder) / "export" / "1", StudyInstanceUID="1.1")
    (Path(archive.dataset_folder) / "cache").touch()
    assert read_files(archive)[0] == "export/1"
    assert "mine_dicom_ids.json: cannot be written (" in capsys.readouterr().err


@pytest.mark.skipif(not (SHARED_DATA / "dicom").is_dir(), reason="the real DICOM files are not at hand")
def test_real_files(archive: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine headers of eight studies, and a web page: two files have one StudyInstanceUID and one SOPInstanceUID."""
    folder = Path(archive.dataset_folder)
    shutil.copytree(SHARED_DATA / "dicom", folder / "export")
    studies = {
        "1.2.276.0.7230010.3.1.2.8323329.6904.1517875201.850818": (
            "txv_1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
        ),
        "1.2.392.200036.9125.0.199302241758.16": "gdcm-CR-MONO1-10-chest.dcm",
        "1.3.51.0.7.11718630008.47994.56651.37198.64796.25453.11641": "Issue56-NoPixelData.dcm",  # lateral, alone
        "1.2.392.200046.100.2.1.97028794843.150131102105": "966.dcm",
    }
    lines = [f"{study},p{k},{k % 2}" for k, study in enumerate(studies)]
    (folder / "labels.csv").write_text("\n".join(["study,who,tube", *lines]))
    table = read_label_table(build_table_source(archive))
    assert files_of(table, archive) == [f"export/{name}" for name in studies.values()]
    assert table.labels[:, 0].tolist() == [0, 1, 0, 1]
    captured = capsys.readouterr()
    assert captured.out.startswith("1 of 10 files of path_pattern='export/**/*' are passed over: no DICOM files, or")
    assert captured.err.count("warning") == 1
    assert "1 ids in column study of" in captured.err
    assert "export/txv_Fake_MONOHR1.dcm\n" in captured.err


def test_pydicom_is_imported_only_where_it_is_used() -> None:
    code = "import sys; import catheters.data.tables.label_table; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
