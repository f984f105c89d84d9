"""How often 95% intervals hold the truth: python benchmarks/coverage.py.

A whole population of patients is scored once, so that every true number is known. Then some of its patients are drawn
again and again, with replacement, and the intervals of each draw are held against the truth. Patients and labels are
those of RANZCR's table where `--table` names it (1 to 172 images per patient), else made up in its likeness. Scores are
normal, half of their variance is the patient's. The table says for each metric how often intervals hold the truth: of
all cells, a cell being a label, a number of patients and a strength of the model; labels count where they have 10
positive and 10 negative patients. --quick takes seconds and says nothing.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from catheters.evaluation.intervals import UNDEFINED, Contributions, Estimate, estimate, mean_estimate, subtract
from catheters.evaluation.patients import Patients
from catheters.evaluation.recalibration import measure as measure_calibration
from catheters.labels import RANZCR_LABELS

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.uint8]

DISTANCES: Mapping[str, Floats] = {
    "weak": np.full(11, 0.5),
    "strong": np.full(11, 2.0),
    "mixed": np.linspace(0.4, 4.4, 11),
    "saturated": np.full(11, 4.0),
}
"""Strength of a model -> how far apart positives and negatives of each label are, in standard deviations: true ROC AUCs
of about .64, .92, .62 to .999 and .998."""
GAIN, SHARED = 0.2, 0.9
"""How much farther apart they are for a second model, and the part of the errors that it shares with the first."""
LEAST_PATIENTS = 10
"""With the label, and without it, for a label to count."""
LEAST_TRIALS = 100
"""Of a cell, for the table to speak of it."""
CALIBRATION: Mapping[str, str] = {
    "slope": "calibration slope",
    "intercept": "calibration intercept",
    "in_the_large": "calibration in the large",
    "observed_to_expected": "observed over expected",
}
"""What a recalibration measures -> its name in the table. It has neither mean nor difference."""
NO_CALIBRATION = dict.fromkeys(CALIBRATION.values(), UNDEFINED)
SHARES = (4, 52, 241, 9, 18, 91, 159, 106, 281, 709, 28)
"""Images in a thousand that have each of RANZCR's labels, rounded up where rare."""


Measured = list[dict[str, Contributions]]
"""Of each label, metric -> the number and what each patient makes up of it."""


class Population(NamedTuple):
    """Of n images in the order of their patients: patients (n,), targets (n, 11), both models' scores (2, n, 11), and
    how far apart positives and negatives are (2, 11)."""

    patients: npt.NDArray[np.intp]
    targets: Targets
    scores: Floats
    distances: Floats


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, metavar="CSV", help="RANZCR's train.csv (default: a table is made up)")
    parser.add_argument("--patients", type=int, nargs="+", default=[100, 300, 651], help="drawn (default: 100 300 651)")
    parser.add_argument("--strengths", nargs="+", choices=list(DISTANCES), default=list(DISTANCES))
    parser.add_argument("--trials", type=int, default=500, help="of each number of patients and strength")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two trials of 100 patients and one model")
    options = parser.parse_args()
    if options.quick:
        options.patients, options.strengths, options.trials = [100], ["mixed"], 2
    patients, targets = make_up_table() if options.table is None else read_table(options.table)
    held: dict[tuple[str, ...], list[tuple[bool, bool]]] = defaultdict(list)
    for strength in options.strengths:
        population = score_population(patients, targets, DISTANCES[strength], seed=7)
        for num_patients in options.patients:
            for metric, cell, truth, found in simulate(population, num_patients, options.trials, options.seed):
                key = metric, strength, str(num_patients), cell
                held[key].append((found.low <= truth <= found.high, found.few_patients))
            print(f"{strength}, {num_patients} patients: done", file=sys.stderr, flush=True)
    print("\n".join(table_lines(held, 1 if options.quick else LEAST_TRIALS)))
    return 0


def read_table(file: Path) -> tuple[npt.NDArray[np.intp], Targets]:
    """(n,) patients and (n, 11) targets of RANZCR's table, patient after patient."""
    table = pd.read_csv(file).sort_values("PatientID", kind="stable")
    patients = np.unique(table["PatientID"].to_numpy(), return_inverse=True)[1]
    return patients.astype(np.intp), table[list(RANZCR_LABELS)].to_numpy(np.uint8)


def make_up_table(num_patients: int = 3255) -> tuple[npt.NDArray[np.intp], Targets]:
    """The same made up: log-normal numbers of images from 1 to 172 (median 5, mean 9), labels that cluster."""
    rng = np.random.default_rng(3)
    sizes = np.clip(np.round(np.exp(rng.normal(1.65, 1.07, num_patients))), 1, 172).astype(np.intp)
    patients = np.repeat(np.arange(num_patients), sizes)
    shares = np.array(SHARES) / 1000
    spread = 4.0
    # The mean of a logistic normal variable is about that of logit / sqrt(1 + spread^2 / 2.9).
    centre = logit(shares) * np.sqrt(1 + spread**2 / 2.9)
    of_patients = expit(rng.normal(centre, spread, (num_patients, len(shares))))
    return patients, (rng.random((len(patients), len(shares))) < of_patients[patients]).astype(np.uint8)


def score_population(
    patients: npt.NDArray[np.intp], targets: Targets, distances: Floats, seed: int, patient_part: float = 0.5
) -> Population:
    """Two models' scores, the second one's a little better; `patient_part` of the errors' variance is the patient's."""
    rng = np.random.default_rng(seed)
    of_patients = rng.normal(size=(int(patients.max()) + 1, targets.shape[1]))[patients]
    errors = np.sqrt(patient_part) * of_patients + np.sqrt(1 - patient_part) * rng.normal(size=targets.shape)
    others = SHARED * errors + np.sqrt(1 - SHARED**2) * rng.normal(size=targets.shape)
    of_models = np.stack([distances, distances + GAIN])
    scores = np.stack([of_models[0] * targets + errors, of_models[1] * targets + others])
    return Population(patients, targets, scores, of_models)


def simulate(
    population: Population, num_patients: int, num_trials: int, seed: int
) -> Iterator[tuple[str, str, float, Estimate]]:
    """Metric, cell, true number and what a trial found, trial after trial."""
    # Fixed beforehand, as an operating point is: where positives and negatives are as likely.
    prevalence = population.targets.mean(axis=0)

    def measure_both(patients: Patients, rows: npt.NDArray[np.intp] | slice) -> list[Measured]:
        return [
            measure(patients, population.targets[rows], scores[rows], distances, prevalence)
            for scores, distances in zip(population.scores, population.distances, strict=True)
        ]

    truth = measure_both(Patients(population.patients), slice(None))
    starts = np.searchsorted(population.patients, np.arange(population.patients.max() + 2))
    rng = np.random.default_rng((seed, num_patients))
    for _ in range(num_trials):
        drawn = rng.integers(0, len(starts) - 1, num_patients)
        rows = np.concatenate([np.arange(starts[patient], starts[patient + 1]) for patient in drawn])
        patients = Patients(np.repeat(np.arange(num_patients), np.diff(starts)[drawn]))
        targets, found = population.targets[rows], measure_both(patients, rows)
        counts = [
            min(patients.num_patients_with(column == target) for target in (0, 1)) >= LEAST_PATIENTS
            for column in targets.T
        ]
        yield from _compare(truth, found, np.flatnonzero(counts).tolist())


def _compare(
    truth: list[Measured], found: list[Measured], labels: list[int]
) -> Iterator[tuple[str, str, float, Estimate]]:
    for metric in CALIBRATION.values():
        for k in labels:
            part, true_value = found[0][k][metric], truth[0][k][metric].value
            if not np.isnan([part.value, true_value]).any():
                yield metric, f"label {k}", true_value, estimate(part)
    for metric in (metric for metric in truth[0][0] if metric not in NO_CALIBRATION):
        true = [[of_label[metric].value for of_label in of_model] for of_model in truth]
        parts = [[of_model[k][metric] for k in labels] for of_model in found]
        gaps = [subtract(*pair) for pair in zip(*parts, strict=True)]
        for k, part, gap in zip(labels, parts[0], gaps, strict=True):
            if not np.isnan(part.value):
                yield metric, f"label {k}", true[0][k], estimate(part)
            if not np.isnan(gap.value):
                yield f"{metric}, difference", f"label {k}", true[1][k] - true[0][k], estimate(gap)
        defined = [number for number, gap in enumerate(gaps) if not np.isnan(gap.value)]
        if defined:
            means = [float(np.mean([of_model[labels[number]] for number in defined])) for of_model in true]
            yield f"macro {metric}", "", means[0], mean_estimate([parts[0][number] for number in defined])
            yield (
                f"macro {metric}, difference",
                "",
                means[1] - means[0],
                mean_estimate([gaps[number] for number in defined]),
            )


def measure(patients: Patients, targets: Targets, scores: Floats, distances: Floats, prevalence: Floats) -> Measured:
    """All metrics of every label of n images, of one model's (n, 11) scores; its probabilities are calibrated."""
    probabilities = expit(logit(prevalence) + distances * scores - distances**2 / 2)
    ones, of_labels = np.ones(len(targets)), []
    for k in range(targets.shape[1]):
        has_both = len(np.unique(targets[:, k])) == 2
        calibration = measure_calibration(targets[:, k], probabilities[:, k], patients) if has_both else {}
        positive, called = targets[:, k] == 1, scores[:, k] >= distances[k] / 2
        area, precision = patients.ranking(targets[:, k], scores[:, k])
        of_labels.append(
            {
                "ROC AUC": area,
                "average precision": precision,
                "Brier score": patients.ratio((probabilities[:, k] - positive) ** 2, ones),
                "sensitivity": patients.ratio(positive & called, positive),
                "specificity": patients.ratio(~positive & ~called, ~positive),
                "PPV": patients.ratio(positive & called, called),
                "NPV": patients.ratio(~positive & ~called, ~called),
            }
            | NO_CALIBRATION
            | {CALIBRATION[name]: part for name, part in calibration.items()}
        )
    return of_labels


def table_lines(held: Mapping[tuple[str, ...], list[tuple[bool, bool]]], least_trials: int) -> list[str]:
    """Markdown: per metric the share of intervals that hold the truth, of all, at worst and at most, and of those that
    are marked."""
    metrics = list(dict.fromkeys(metric for metric, *_ in held))
    lines = [
        "| metric | cells | mean | worst cell | | highest | cells in 93 to 97% | marked | of those |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for metric in metrics:
        cells = {
            key: np.array(trials) for key, trials in held.items() if key[0] == metric and len(trials) >= least_trials
        }
        if not cells:
            continue
        shares = {key: float(trials[:, 0].mean()) for key, trials in cells.items()}
        worst = min(shares, key=lambda key: shares[key])
        _, strength, num_patients, cell = worst
        values = np.array(list(shares.values()))
        every = np.concatenate(list(cells.values()))
        marked = every[every[:, 1]]
        of_marked = f"{marked[:, 0].mean():.1%}" if len(marked) else "-"
        where = ", ".join(part for part in (strength, f"{num_patients} patients", cell) if part)
        inside = float(((values >= 0.93) & (values <= 0.97)).mean())
        lines.append(
            f"| {metric} | {len(cells)} | {values.mean():.1%} | {values.min():.1%} | {where} | {values.max():.1%} "
            f"| {inside:.0%} | {len(marked) / len(every):.0%} | {of_marked} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
