"""A comparison of variants as files: `comparison.csv` and `comparison.json`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from catheters.evaluation.variants.comparison import VariantComparison, VariantResult
from catheters.evaluation.variants.seeds import SeedDifference
from catheters.io import files

FORMAT_VERSION = 1
CSV_FILE = "comparison.csv"
JSON_FILE = "comparison.json"
TEXT_FILE = "comparison.txt"
PAGE_FILE = "comparison.html"


def write_csv(file: Path, comparison: VariantComparison) -> None:
    """Write a row per variant and score: the difference from the first and what its interval is made of.

    The costs are not among it: they differ from machine to machine.
    """
    rows = [
        {"variant": result.name, "label": label, **_numbers(found), "num_seeds": len(found.of_seeds)}
        for result in comparison.others
        for label, found in result.differences.items()
    ]
    columns = ["variant", "label", "difference", "low", "high", "standard_error", "degrees_of_freedom", "p_value"]
    frame = pd.DataFrame(rows, columns=[*columns, "patient_variance", "seed_variance", "num_seeds"])
    files.write_whole(file, lambda part: frame.to_csv(part, index=False))


def write_json(file: Path, comparison: VariantComparison, inputs: Mapping[str, str]) -> None:
    """Write all numbers.

    Args:
        file: the JSON file; it is whole or absent.
        comparison: what was found out.
        inputs: what it was made of, name -> hash.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "name": comparison.name,
        "metric": "roc_auc",
        "first": comparison.first.name,
        "winner": comparison.winner,
        "verdict": comparison.verdict,
        "seeds": list(comparison.seeds),
        "folds": list(comparison.folds),
        "num_images": comparison.num_images,
        "num_patients": comparison.num_patients,
        "image_kind": comparison.image_kind,
        "notes": list(comparison.notes),
        "variants": [_describe(result) for result in comparison.results],
        "inputs": dict(inputs),
    }
    files.write_json(file, content)


def _describe(result: VariantResult) -> dict[str, Any]:
    cost = result.given.cost
    return {
        "name": result.name,
        "settings": {name: _plain(value) for name, value in result.given.settings.items()},
        "seeds": list(result.seeds),
        "failures": list(result.given.failures),
        "macro_auc_of_seeds": dict(zip(map(str, result.given.runs), result.aucs.tolist(), strict=True)),
        "adjusted_p_value": result.adjusted_p_value,
        "direction": result.direction,
        "differences": {
            label: {**_numbers(found), "num_seeds": len(found.of_seeds), "of_seeds": found.of_seeds.tolist()}
            for label, found in result.differences.items()
        },
        "cost": None if cost is None else dataclasses.asdict(cost),
    }


def _numbers(found: SeedDifference) -> dict[str, float]:
    return {
        "difference": found.estimate.value,
        "low": found.estimate.low,
        "high": found.estimate.high,
        "standard_error": found.standard_error,
        "degrees_of_freedom": found.degrees_of_freedom,
        "p_value": found.p_value,
        "patient_variance": found.patient_variance,
        "seed_variance": found.seed_variance,
    }


def _plain(value: Any) -> Any:
    """What JSON can hold; else the text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value
