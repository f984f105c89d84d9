"""What was found out about readers as part of `metrics.json` and `metrics.csv`."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from catheters.evaluation.intervals import Estimate
from catheters.evaluation.readers import PairAgreement, ReaderResults

AGREEMENT = ("agreement", "kappa")
AGAINST_TRUTH = (*AGREEMENT, "sensitivity", "specificity")


def describe_readers(readers: ReaderResults) -> dict[str, Any]:
    """The object `readers` of `metrics.json`; NaN is for its writer to replace."""
    return {
        "readers": list(readers.readers),
        "between_readers": [_describe(pair, AGREEMENT) for pair in readers.pairs],
        "all_readers": [dataclasses.asdict(joint) for joint in readers.joint],
        "readers_against_labels": _describe_all(readers.against_labels),
        "model_against_readers": _describe_all(readers.model),
        "model_against_labels": [
            _describe(pair, AGAINST_TRUTH) | {"images_of": of_reader.judge}
            for pair, of_reader in zip(readers.model_against_labels, readers.against_labels, strict=True)
        ],
    }


def list_reader_estimates(readers: ReaderResults) -> Iterator[tuple[str, str, str, Estimate]]:
    """Every number of readers that has an interval or should have one: of, name, metric, estimate."""
    for pair in readers.pairs:
        yield from _rows("between readers", pair, AGREEMENT)
    for joint in readers.joint:
        yield "all readers", joint.label, "kappa", joint.kappa
    for pair in readers.against_labels:
        yield from _rows("reader against labels", pair, AGAINST_TRUTH)
    for pair, of_reader in zip(readers.model_against_labels, readers.against_labels, strict=True):
        yield from _rows(f"model against labels, images of {of_reader.judge}", pair, AGAINST_TRUTH)
    for pair in readers.model:
        yield from _rows("model against reader", pair, AGAINST_TRUTH)


def _rows(of: str, pair: PairAgreement, metrics: Sequence[str]) -> Iterator[tuple[str, str, str, Estimate]]:
    for metric in metrics:
        yield of, f"{pair.label}: {pair.judge} and {pair.reference}", metric, getattr(pair, metric)


def _describe_all(pairs: Sequence[PairAgreement]) -> list[dict[str, Any]]:
    return [_describe(pair, AGAINST_TRUTH) for pair in pairs]


def _describe(pair: PairAgreement, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "label": pair.label,
        "judge": pair.judge,
        "reference": pair.reference,
        "num_images": pair.num_images,
        "num_patients": pair.num_patients,
        **{metric: dataclasses.asdict(getattr(pair, metric)) for metric in metrics},
    }
