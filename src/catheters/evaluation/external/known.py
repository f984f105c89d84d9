"""The external validations that stand in a run folder, and their place in the run's model card."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catheters.evaluation.external.files import CARD_FILE, JSON_FILE
from catheters.io.files import UnreadableFileError, read_json, write_text

FOLDER = "external"
"""In the run folder, a folder for each validation."""
CARD_SECTION = "## External validation"


def describe_frozen(predictions_sha256: str, operating_point_rule: str, calibration: str) -> dict[str, str]:
    """What a validation leaves as it is, which `external.json` keeps as `frozen`.

    Args:
        predictions_sha256: of the run's out-of-fold predictions, from which thresholds and calibration follow.
        operating_point_rule: by which thresholds are chosen.
        calibration: the method.
    """
    return {
        "predictions_sha256": predictions_sha256,
        "operating_point_rule": operating_point_rule,
        "calibration": calibration,
    }


def read_source(folder: Path) -> str | None:
    """The config or the predictions whose validation a folder holds; None where it holds none that can be read."""
    try:
        content = read_json(folder / JSON_FILE)
    except UnreadableFileError:
        return None
    return str(content["source"]) if isinstance(content, dict) and "source" in content else None


def read_validations(run: Path, frozen: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """Those of the run as it is evaluated now: name of the folder -> its `external.json`.

    Args:
        run: the run folder.
        frozen: what is frozen now, see `describe_frozen`.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for file in sorted((run / FOLDER).glob(f"*/{JSON_FILE}")):
        try:
            content = read_json(file)
        except UnreadableFileError:
            continue
        if isinstance(content, dict) and content.get("frozen") == frozen:
            found[file.parent.name] = content
    return found


def add_to_model_card(run: Path, validations: Mapping[str, Mapping[str, Any]]) -> None:
    """Let the run's model card, where there is one, name its validations, see `read_validations`."""
    card = run / "MODEL_CARD.md"
    if not card.is_file():
        return
    lines: Sequence[str] = [
        f"- [{name}]({FOLDER}/{name}/{CARD_FILE}): {content['summary']}" for name, content in validations.items()
    ]
    text = re.sub(rf"\n*{CARD_SECTION}\n.*?(?=\n## |\Z)", "", card.read_text(encoding="utf-8"), flags=re.DOTALL)
    section = f"\n\n{CARD_SECTION}\n\n" + "\n".join(lines) + "\n" if lines else "\n"
    write_text(card, text.rstrip("\n") + section)
