"""`environment.json` of a run folder: what it was trained on, and under what; read without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catheters.errors import UserError
from catheters.io.files import UnreadableFileError, read_json, write_text

FILE_NAME = "environment.json"
FORMAT_VERSION = 2


def write_record(
    folder: Path, data_fingerprint: str, environments: list[dict[str, Any]], annotations_sha256: str | None = None
) -> None:
    """Write the record; the file is whole or absent.

    Args:
        folder: the run's.
        data_fingerprint: hash of the images, ids, labels, folds and weights that it trains on.
        environments: see `describe_environment`; one for each time that a run was resumed under another one.
        annotations_sha256: of the content of its `annotation_table`; None: it has none.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "data_fingerprint": data_fingerprint,
        "annotations_sha256": annotations_sha256,
        "environments": environments,
    }
    write_text(folder / FILE_NAME, json.dumps(content, indent=2) + "\n")


def read_record(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The inverse of `write_record`: the fingerprint, and the environments, at least one.

    Raises:
        UserError: there is none, or it is damaged.
    """
    file = folder / FILE_NAME
    try:
        content = read_json(file)
        fingerprint, environments = str(content["data_fingerprint"]), content["environments"]
        for environment in environments:
            describe_environment_in_words(environment)
    except (UnreadableFileError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: missing or damaged") from None
    if not environments:
        raise UserError(f"{file}: damaged, names no environment")
    return fingerprint, environments


def is_of_version_0_2(folder: Path) -> bool:
    """Whether a run was made by version 0.2.0, and not resumed since; its record has no version of its format."""
    file = folder / FILE_NAME
    if not file.exists():  # a copy without it
        return not any(folder.glob("*/finished.json"))
    try:
        return "format_version" not in read_json(file)
    except (UnreadableFileError, TypeError):
        return False


def recorded_annotations(folder: Path) -> str | None:
    """The hash of the `annotation_table` that a run started with; None where it had none, or an earlier version,
    which did not write that, began it.

    Raises:
        UnreadableFileError: there is no record, or it is damaged.
    """
    sha256 = read_json(folder / FILE_NAME).get("annotations_sha256")
    return None if sha256 is None else str(sha256)


def describe_environment_in_words(environment: Mapping[str, Any]) -> str:
    """Command, versions, commit and hardware, in three lines."""
    hardware, count = environment["hardware"], environment["num_processes"]
    versions = ", ".join(f"{package} {version}" for package, version in environment["versions"].items())
    computed = f"{environment['device']}, {count} processes" if count > 1 else environment["device"]
    return (
        f"command: {environment['command']}\n"
        f"versions: {versions}, Python {environment['python']}, commit {environment['git_commit'] or 'unknown'}\n"
        f"hardware: {computed}; {hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GB of memory, "
        f"GPUs: {', '.join(hardware['gpus']) or 'none'}"
    )
