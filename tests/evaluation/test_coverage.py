"""The short form of benchmarks/coverage.py: with heavy-tailed patients intervals hold the truth, for every metric."""

from collections import defaultdict
from types import ModuleType

import numpy as np
import pytest

from tests.conftest import load_benchmark


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    """benchmarks/coverage.py, which is no part of a package."""
    return load_benchmark("coverage")


def test_made_up_patients_are_like_ranzcrs(coverage: ModuleType) -> None:
    """There: 3,255 patients of 1 to 172 images, median 5, as good as 1,136 of one image each; 51 for NGT Abnormal."""
    patients, targets = coverage.make_up_table()
    sizes = np.bincount(patients)
    assert (len(sizes), sizes.min(), sizes.max(), np.median(sizes)) == (3255, 1, 172, 5)
    assert 900 < sizes.sum() ** 2 / (sizes**2).sum() < 1300
    assert (targets.mean(axis=0) > 0).all()


@pytest.mark.slow
def test_intervals_hold(coverage: ModuleType) -> None:
    """Per metric over all labels, 150 patients, two models; a bootstrap's held in .5 to .8 of such trials at worst."""
    patients, targets = coverage.make_up_table()
    held: dict[str, list[bool]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    for strength in ("weak", "saturated"):
        population = coverage.score_population(patients, targets, coverage.DISTANCES[strength], seed=5)
        for metric, _, truth, found in coverage.simulate(population, 150, 60, seed=11):
            held[metric].append(found.low <= truth <= found.high)
            widths[metric].append(found.high - found.low)
    # 7 metrics, of labels and means, of models and differences, and 4 numbers of the calibration of a label
    assert len(held) == 32
    for metric, trials in held.items():
        assert np.mean(trials) >= 0.90, metric
        assert metric in coverage.NO_CALIBRATION or np.mean(widths[metric]) < 0.5, metric
        assert min(widths[metric]) > 0, metric


def test_table_of_the_quick_form(
    coverage: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["coverage.py", "--quick"])
    assert coverage.main() == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("| metric | cells | mean | worst cell |")
    assert len(rows) == 32 and all(row.count("|") == header.count("|") for row in rows)
    lines = coverage.table_lines({("AUC", "weak", "100", "label 1"): [(True, False), (False, True)] * 2}, 1)
    assert lines[2] == "| AUC | 1 | 50.0% | 50.0% | weak, 100 patients, label 1 | 50.0% | 0% | 50% | 0.0% |"
