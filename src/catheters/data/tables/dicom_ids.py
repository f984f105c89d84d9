"""DICOM files found by an id in their headers, for archives whose file names say nothing.

Reading the headers of 100,000 files takes minutes, so what was read is kept beside the image cache and used again for
files of unchanged size and time.
"""

import json
import stat
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from catheters.data.decoding.dicom import LATERAL_VIEWS
from catheters.data.decoding.header import read_header
from catheters.errors import is_of_path, listed, one_line, raise_of_machine
from catheters.io.csv_files import TableError
from catheters.io.files import UnreadableFileError, printable, read_json, write_text
from catheters.io.near_misses import same_id_hint
from catheters.runtime.console import say, warn
from catheters.runtime.progress import track

FILES_SHOWN = 5
"""Files that a warning names: those of one ambiguous id, or links to nowhere."""


class Header(NamedTuple):
    """What a file's header says; the id is empty where it is no DICOM file, or has none."""

    size: int
    mtime_ns: int
    id: str
    view: str


def find_dicom_files(
    uids: npt.NDArray[np.str_], folder: Path, path_pattern: str, dicom_id: str, kept_file: Path, source: str
) -> tuple[Path, ...]:
    """The file whose header holds each id, among those that `path_pattern` matches.

    Lateral X-rays are left aside where the id has another; of several that remain, the first by path is taken and a
    warning says so. An id without a file gets a path that does not exist and says why.

    Args:
        uids: (N,) the ids.
        folder: the data set's.
        path_pattern: of the files in it.
        dicom_id: keyword of the id in their headers.
        kept_file: what was read is kept there for the next time.
        source: where the ids come from, for the messages.

    Returns:
        (N,) paths.

    Raises:
        TableError: no file matches, or none has an id of the table.
    """
    headers = _read_headers(folder, path_pattern, dicom_id, kept_file)
    files_of_id: dict[str, list[str]] = {}
    for file in sorted(headers):
        files_of_id.setdefault(headers[file].id, []).append(file)
    passed_over = files_of_id.pop("", [])
    if passed_over:
        say(
            f"{len(passed_over)} of {len(headers)} files of path_pattern='{path_pattern}' are passed over: no "
            f"DICOM files, or without {dicom_id}"
        )
    wanted = [uid.strip() for uid in uids.tolist()]
    if files_of_id.keys().isdisjoint(wanted):
        file_id = next(iter(files_of_id), None)
        hint = f"; a file's looks like {file_id!r} ({files_of_id[file_id][0]})" if file_id is not None else ""
        raise TableError(
            f"{folder}: none of the {len(headers)} files of path_pattern='{path_pattern}' has a "
            f"{dicom_id} that is an id in {source}, where an id looks like {wanted[0]}{hint}"
            f"{same_id_hint(wanted, files_of_id)}"
        )
    _warn_of_other_forms([uid for uid in wanted if uid not in files_of_id], files_of_id, dicom_id, len(wanted), source)
    files_of_wanted = {uid: _without_laterals(files_of_id.get(uid, []), headers) for uid in wanted}
    _warn_of_several(files_of_wanted, source)
    return tuple(folder / (files_of_wanted[uid] or [f"no file with {dicom_id} {uid}"])[0] for uid in wanted)


def _warn_of_other_forms(
    missing: list[str], file_ids: Collection[str], dicom_id: str, num_wanted: int, source: str
) -> None:
    """Say how many ids have no file, where one of them is a file's but for its form; others are no mistake of it."""
    hint = same_id_hint(missing, file_ids)
    if hint:
        warn(f"{len(missing)} of {num_wanted} ids in {source} have no file with this {dicom_id}{hint}")


def _warn_of_several(files_of_id: dict[str, list[str]], source: str) -> None:
    several = {uid: files for uid, files in files_of_id.items() if len(files) > 1}
    if not several:
        return
    uid, files = next(iter(several.items()))
    others = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
    warn(
        f"{len(several)} ids in {source} have several files, of which the first is taken; {uid} for one: "
        f"{', '.join(files[:FILES_SHOWN])}{others}"
    )


def _without_laterals(files: list[str], headers: dict[str, Header]) -> list[str]:
    others = [file for file in files if headers[file].view.upper() not in LATERAL_VIEWS]
    return others or files


def _read_headers(folder: Path, path_pattern: str, dicom_id: str, kept_file: Path) -> dict[str, Header]:
    """Header of each file, by its path relative to the folder: those kept from an earlier time, and the others read."""
    kept, kept_pattern = _read_kept(kept_file, dicom_id)
    states = _list_files(folder, path_pattern)
    if not states and kept and kept_pattern == path_pattern:
        # The image cache may travel without the X-rays, and its label table is then read all the same.
        say(f"{folder}: no file is left of path_pattern='{path_pattern}'; {kept_file} says which there were")
        return kept
    if not states:
        raise TableError(f"{folder}: path_pattern='{path_pattern}' matches no file in it")
    headers = {file: kept[file] for file, state in states.items() if file in kept and kept[file][:2] == state}
    unread = [file for file in states if file not in headers]
    if not unread:
        return headers
    unreadable = {}
    try:
        for file in track(unread, "reading DICOM headers", total=len(unread), unit="file"):
            try:
                headers[file] = Header(*states[file], *_read_header(folder / file, dicom_id))
            except OSError as error:
                if not is_of_path(error):
                    raise OSError(error.errno, error.strerror, str(folder / file)) from None
                unreadable[file] = Header(*states[file], "", "")
    finally:
        _keep(kept_file, headers, path_pattern, dicom_id)
    return headers | unreadable


def _list_files(folder: Path, pattern: str) -> dict[str, tuple[int, int]]:
    """Size and time of change (ns) of the files that the pattern matches, by path relative to the folder, sorted.

    A warning names what is there and leads to no file: links to nowhere, folders that are not for this user.
    """
    states = {}
    passed_over = []
    for path in folder.glob(pattern):
        file = path.relative_to(folder)
        try:
            state = path.stat()
        except OSError as error:
            if not is_of_path(error):
                raise
            reason = f"a link to {printable(path.readlink())}" if path.is_symlink() else error.strerror
            passed_over.append(f"{printable(file)} ({reason})")
            continue
        if stat.S_ISREG(state.st_mode):
            states[file.as_posix()] = (state.st_size, state.st_mtime_ns)
    if passed_over:
        warn(
            f"path_pattern='{pattern}': passed over, as they lead to no file: "
            f"{listed(sorted(passed_over), FILES_SHOWN)}"
        )
    return dict(sorted(states.items()))


def _read_header(file: Path, dicom_id: str) -> tuple[str, str]:
    """Id and ViewPosition, empty where there is none or the file is no DICOM file.

    Raises:
        OSError: the file cannot be read.
    """
    keywords = (dicom_id, "ViewPosition")
    header = read_header(file, keywords)
    if header is None:
        return "", ""
    try:
        with warnings.catch_warnings(action="ignore"):
            values = [header.get(keyword) for keyword in keywords]
            file_id, view = ("" if value is None else str(value).strip(" \0") for value in values)
            return file_id, view
    except Exception as error:  # whatever a damaged value brings out in the library
        raise_of_machine(error)
        return "", ""


def _read_kept(kept_file: Path, dicom_id: str) -> tuple[dict[str, Header], str]:
    """The headers that were read earlier, and the pattern of their files; none where that file is of no use."""
    if not kept_file.exists():
        return {}, ""
    try:
        content = read_json(kept_file)
        if content["dicom_id"] != dicom_id:
            return {}, ""
        headers = {file: Header(*entry) for file, entry in content["files"].items()}
        if any(list(map(type, header)) != [int, int, str, str] for header in headers.values()):
            return {}, ""
        return headers, str(content["path_pattern"])
    except UnreadableFileError as error:
        warn(f"{error}; the DICOM headers are read again")
    except (ValueError, KeyError, TypeError, AttributeError):
        warn(f"{kept_file}: damaged; the DICOM headers are read again")
    return {}, ""


def _keep(kept_file: Path, headers: dict[str, Header], path_pattern: str, dicom_id: str) -> None:
    content = {"dicom_id": dicom_id, "path_pattern": path_pattern, "files": headers}
    try:
        kept_file.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept_file, json.dumps(content))
    except OSError as error:
        warn(f"{kept_file}: cannot be written ({one_line(error)}); the DICOM headers will be read again")
