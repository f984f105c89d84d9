"""What intervals cost, and what they are worth: python benchmarks/evaluation.py.

On as many images, patients and labels as RANZCR CLiP has, with predictions that are made up: the bootstrap over
patients, all resamples side by side, against the plain loop that repeats the images of each resample and asks
scikit-learn; both do the same few resamples, then the first one does 2,000. Then the whole of evaluate.py against
reading the same files and asking scikit-learn for the two scores of each label, which have no intervals: what
intervals, operating points, calibration and the page cost. Then how often 95% intervals hold the truth in a simulation
where the images of a patient are alike, resampling patients and resampling images; likewise for means over eleven
labels.
"""

import contextlib
import io
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from rows import Row, compare_seconds, create_parser, finish
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score
from timing import take_turns

from catheters.commands.evaluation_options import main as evaluate
from catheters.evaluation.intervals import PatientBootstrap, percentile_estimate
from catheters.labels import RANZCR_LABELS

NUM_IMAGES, NUM_PATIENTS = 30_083, 3_255
POSITIVES = (79, 1138, 7240, 279, 529, 2748, 4797, 3195, 8460, 21324, 830)
"""Of RANZCR CLiP's labels, in their order."""
NUM_LOOPED = 5
Scores = npt.NDArray[np.float64]


def main() -> int:
    """Print all tables."""
    parser = create_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of loop and bootstrap, taking turns (default: 5)")
    parser.add_argument("--trials", type=int, default=1000, help="of the simulation; 0: none (default: 1000)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th image (default: all)")
    parser.add_argument("--resamples", type=int, default=2000, help="of evaluate.py (default: 2,000)")
    options = parser.parse_args()
    patients, targets, scores = make_up()
    data = MadeUp(patients[:: options.every], targets[:: options.every], scores[:: options.every])
    rows = [compare_bootstraps(data, options.rounds), compare_evaluations(data, options.resamples, options.rounds)]
    if options.trials:
        simulate_coverage(options.trials)
        simulate_macro_coverage(max(options.trials // 5, 1))
    return finish(rows, options)


class MadeUp(NamedTuple):
    """(N,) patients, (N, K) targets and as many scores, the larger the likelier."""

    patients: npt.NDArray[np.str_]
    targets: npt.NDArray[np.uint8]
    scores: Scores


def make_up() -> MadeUp:
    """As many as in RANZCR CLiP."""
    rng = np.random.default_rng(0)
    patients = np.concatenate([np.arange(NUM_PATIENTS), rng.integers(0, NUM_PATIENTS, NUM_IMAGES - NUM_PATIENTS)])
    targets = np.zeros((NUM_IMAGES, len(POSITIVES)), dtype=np.uint8)
    for k, number in enumerate(POSITIVES):
        targets[rng.choice(NUM_IMAGES, number, replace=False), k] = 1
    return MadeUp(patients.astype(np.str_), targets, 2.0 * targets + rng.normal(size=targets.shape))


def compare_bootstraps(data: MadeUp, num_rounds: int) -> Row:
    """Seconds of the loop and of the bootstrap for the same resamples, and of 2,000."""
    looped, vectorised = [], []
    for number in range(num_rounds):
        started = time.perf_counter()
        by_loop = loop(data, number)
        middle = time.perf_counter()
        side_by_side = bootstrap(data, NUM_LOOPED, number)
        ended = time.perf_counter()
        assert np.allclose(by_loop, side_by_side), "the same numbers"
        looped.append(middle - started)
        vectorised.append(ended - middle)
    print(
        f"ROC AUC and average precision of {len(data.patients):,} images, {len(np.unique(data.patients)):,} patients, "
        f"{len(POSITIVES)} labels"
    )
    seconds = []
    for number in range(num_rounds):
        started = time.perf_counter()
        bootstrap(data, 2000, number)
        seconds.append(time.perf_counter() - started)
    print(f"2,000 resamples take {statistics.median(seconds):.1f} s")
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    return compare_seconds(
        "evaluation",
        f"bootstrap of {NUM_LOOPED} resamples, {len(data.patients):,} images",
        vectorised,
        "loop with scikit-learn",
        looped,
        each=NUM_LOOPED,
        unit="ms/resample",
    )


def loop(data: MadeUp, seed: int) -> Scores:
    """(resamples, labels, 2) in the plain way, of the resamples that `PatientBootstrap` draws."""
    patients, targets, scores = data
    names, patient_of = np.unique(patients, return_inverse=True)
    results = []
    for drawn in np.random.default_rng(seed).integers(0, len(names), (NUM_LOOPED, len(names))):
        rows = np.repeat(np.arange(len(patients)), np.bincount(drawn, minlength=len(names))[patient_of])
        results.append(
            [
                [metric(targets[rows, k], scores[rows, k]) for metric in (roc_auc_score, average_precision_score)]
                for k in range(targets.shape[1])
            ]
        )
    return np.array(results)


def bootstrap(data: MadeUp, num_resamples: int, seed: int) -> Scores:
    """The same side by side."""
    patients, targets, scores = data
    drawn = PatientBootstrap(patients, num_resamples, seed)
    columns = [np.stack(drawn.ranking_scores(targets[:, k], scores[:, k]), axis=1) for k in range(targets.shape[1])]
    return np.stack(columns, axis=1)


def compare_evaluations(data: MadeUp, num_resamples: int, num_rounds: int) -> Row:
    """Seconds of evaluate.py, of a file to its page, and of scikit-learn's scores of the same files."""
    labels = list(RANZCR_LABELS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = folder / "labels.csv", folder / "predictions.csv"
        index = pd.Index([f"image{number}" for number in range(len(data.patients))], name="StudyInstanceUID")
        truth = pd.DataFrame(data.targets, columns=labels, index=index)
        truth.assign(PatientID=data.patients).to_csv(files[0])
        pd.DataFrame(1 / (1 + np.exp(1 - data.scores)), columns=labels, index=index).to_csv(files[1])
        arguments = [
            "--predictions",
            files[1],
            "--labels",
            files[0],
            "--resamples",
            num_resamples,
            "--out",
            folder / "out",
        ]

        def whole() -> None:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                assert evaluate(list(map(str, arguments))) == 0

        def plain() -> None:
            truth, predictions = (pd.read_csv(file).set_index("StudyInstanceUID")[labels] for file in files)
            predictions = predictions.loc[truth.index]
            for label in labels:
                roc_auc_score(truth[label], predictions[label])
                average_precision_score(truth[label], predictions[label])

        seconds, plain_seconds = take_turns([whole, plain], num_rounds, warm_up=0)
    return compare_seconds(
        "evaluation",
        f"evaluate.py, {num_resamples:,} resamples, with its page",
        seconds,
        "ROC AUC, AP by scikit-learn",
        plain_seconds,
    )


def simulate_coverage(num_trials: int) -> None:
    """The share of intervals that hold the true ROC AUC, which is the normal distribution function of 1.5 / 2."""
    print(f"\nshare of 95% intervals that hold the truth, {num_trials} trials of 6 images a patient")
    print(f"{'patients':<12}{'resampled patients':>20}{'resampled images':>20}")
    for num_patients in (30, 60, 150, 500):
        rng = np.random.default_rng(1)
        trials = [draw_common_label(rng, num_patients) for _ in range(num_trials)]
        by_images = [(targets, scores, np.arange(len(targets))) for targets, scores, _ in trials]
        print(f"{num_patients:<12}{coverage(trials):>20.3f}{coverage(by_images):>20.3f}")
    print(f"\n{'positive patients, of 400':<28}{'resampled patients':>20}")
    for num_positives in (3, 5, 10, 20, 40):
        rng = np.random.default_rng(1)
        print(f"{num_positives:<28}{coverage([draw_rare_label(rng, num_positives) for _ in range(num_trials)]):>20.3f}")


Trial = tuple[npt.NDArray[np.uint8], Scores, npt.NDArray[np.intp]]


def draw_common_label(rng: np.random.Generator, num_patients: int) -> Trial:
    """Targets, scores and patients; both are alike within a patient."""
    patients = np.repeat(np.arange(num_patients), 6)
    shares = 1 / (1 + np.exp(-rng.normal(-1, 1, num_patients)))
    targets = (rng.random(len(patients)) < shares[patients]).astype(np.uint8)
    return targets, draw_scores(rng, targets, patients), patients


def draw_rare_label(rng: np.random.Generator, num_positive_patients: int) -> Trial:
    """The same with a label that few of 400 patients have, in two of their images."""
    patients = np.repeat(np.arange(400), 6)
    targets = ((patients < num_positive_patients) & (np.arange(len(patients)) % 6 < 2)).astype(np.uint8)
    return targets, draw_scores(rng, targets, patients), patients


def draw_scores(rng: np.random.Generator, targets: npt.NDArray[np.uint8], patients: npt.NDArray[np.intp]) -> Scores:
    """Scores whose variance is a half the patient's."""
    scores: Scores = 1.5 * targets + rng.normal(size=patients.max() + 1)[patients] + rng.normal(size=len(patients))
    return scores


def coverage(trials: list[Trial]) -> float:
    """The share of trials whose interval holds the truth."""
    truth = float(norm.cdf(1.5 / 2))
    num_held = 0
    for seed, (targets, scores, patients) in enumerate(trials):
        drawn = PatientBootstrap(patients.astype(np.str_), 400, seed)
        areas, _ = drawn.ranking_scores(targets, scores)
        num_patients = min(len(np.unique(patients[targets == target])) for target in (0, 1))
        estimate = percentile_estimate(float(roc_auc_score(targets, scores)), areas, num_patients)
        num_held += estimate.low <= truth <= estimate.high
    return num_held / len(trials)


LABEL_LOGITS = np.linspace(-3.5, 0.5, 11)
"""Of eleven labels: how common they are, from about 4% of the images to 60%."""
STRENGTHS = {"weak": 0.5, "strong": 2.0}
"""How far apart positives and negatives are, in standard deviations of what a patient's images share."""
GAIN = 0.2
"""How much farther apart they are for the second of two models."""
MACRO_COLUMNS = (
    *("macro AUC", "its difference", "AP of a label", "macro AP", "its difference"),
    *("macro Brier", "its difference"),
)


def simulate_macro_coverage(num_trials: int) -> None:
    """The share of intervals that hold the true means over eleven labels, of a model and of two models' difference.

    The truth is that of 100,000 patients; a label without positives in a trial is left out of the trial and its truth,
    but for the Brier score, which it has.
    """
    print(f"\nshare of 95% intervals that hold the truth, {num_trials} trials of 3 images a patient, 11 labels")
    print(f"{'patients, model':<20}" + "".join(f"{column:>16}" for column in MACRO_COLUMNS))
    for num_patients in (100, 300, 1000):
        for strength, distance in STRENGTHS.items():
            truth = exact_scores(*draw_labels(np.random.default_rng(0), 100_000, distance))
            rng = np.random.default_rng(1)
            held = [held_truth(draw_labels(rng, num_patients, distance), truth, seed) for seed in range(num_trials)]
            shares = "".join(f"{share:>16.3f}" for share in np.mean(held, axis=0))
            print(f"{f'{num_patients}, {strength}':<20}{shares}", flush=True)


def draw_labels(
    rng: np.random.Generator, num_patients: int, distance: float
) -> tuple[npt.NDArray[np.uint8], Scores, npt.NDArray[np.intp]]:
    """(n, 11) targets, (2, n, 11) scores of two models that err alike, (n,) patients."""
    patients = np.repeat(np.arange(num_patients), 3)
    shape = (len(patients), len(LABEL_LOGITS))
    shares = 1 / (1 + np.exp(-rng.normal(LABEL_LOGITS, 1, (num_patients, len(LABEL_LOGITS)))))
    targets = (rng.random(shape) < shares[patients]).astype(np.uint8)
    shared = rng.normal(size=(num_patients, shape[1]))[patients] + rng.normal(size=shape)
    first = distance * targets + shared
    second = (distance + GAIN) * targets + shared + 0.5 * rng.normal(size=shape)
    return targets, np.stack([first, second]), patients


def exact_scores(targets: npt.NDArray[np.uint8], scores: Scores, _: npt.NDArray[np.intp]) -> Scores:
    """(2 models, 3, 11) ROC AUCs, average precisions, NaN for a label of one class, and Brier scores."""
    ranked = [
        [
            [
                metric(targets[:, k], of_model[:, k]) if 0 < targets[:, k].sum() < len(targets) else np.nan
                for k in range(targets.shape[1])
            ]
            for metric in (roc_auc_score, average_precision_score)
        ]
        for of_model in scores
    ]
    return np.concatenate([ranked, squared_errors(targets, scores).mean(axis=1)[:, None]], axis=1)


def squared_errors(targets: npt.NDArray[np.uint8], scores: Scores) -> Scores:
    """(2, n, 11) of probabilities that rank as the (2, n, 11) scores do: logistic, from each label's logit on."""
    squared: Scores = (1 / (1 + np.exp(-(scores + LABEL_LOGITS))) - targets) ** 2
    return squared


def held_truth(
    trial: tuple[npt.NDArray[np.uint8], Scores, npt.NDArray[np.intp]], truth: Scores, seed: int
) -> list[float]:
    """Whether (for labels: how often) the intervals of a trial hold the truth, in the order of `MACRO_COLUMNS`."""
    targets, scores, patients = trial
    drawn = PatientBootstrap(patients.astype(np.str_), 400, seed)
    values = exact_scores(*trial)  # (2, 3, 11)
    columns = range(targets.shape[1])
    ranked = np.array(
        [[drawn.ranking_scores(targets[:, k], of_model[:, k]) for k in columns] for of_model in scores]
    ).swapaxes(1, 2)  # (2 models, 11, 2 metrics, R) -> (2, 2, 11, R)
    num_drawn = drawn.sums(np.ones((len(targets), 1)))
    squared = [(drawn.sums(of_model) / num_drawn).T for of_model in squared_errors(targets, scores)]
    replicates = np.concatenate([ranked, np.array(squared)[:, None]], axis=1)  # (2, 3, 11, R)
    num_patients = drawn.num_patients

    def holds(value: Scores, resampled: Scores, true: Scores) -> float:
        """Of (11,) scores or differences, (11, R) and (11,)."""
        is_defined = ~np.isnan(value)
        estimate = percentile_estimate(
            float(value[is_defined].mean()), resampled[is_defined].mean(axis=0), num_patients
        )
        return float(estimate.low <= true[is_defined].mean() <= estimate.high)

    of_labels = []
    for k in np.flatnonzero(~np.isnan(values[0, 1])):
        rarer = min(len(np.unique(patients[targets[:, k] == target])) for target in (0, 1))
        estimate = percentile_estimate(float(values[0, 1, k]), replicates[0, 1, k], rarer)
        if rarer >= 5:  # with fewer even the AUC's are too narrow
            of_labels.append(float(estimate.low <= truth[0, 1, k] <= estimate.high))
    auc, precision, brier = (
        (
            holds(values[0, metric], replicates[0, metric], truth[0, metric]),
            holds(values[1, metric] - values[0, metric], replicates[1, metric] - replicates[0, metric],
                  truth[1, metric] - truth[0, metric]),
        )
        for metric in range(len(values[0]))
    )  # fmt: skip
    return [*auc, float(np.mean(of_labels)), *precision, *brier]


if __name__ == "__main__":
    sys.exit(main())
