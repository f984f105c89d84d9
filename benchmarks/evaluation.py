"""What intervals cost: python benchmarks/evaluation.py.

On as many images, patients and labels as RANZCR CLiP has, with predictions that are made up: ROC AUC and average
precision with their intervals against scikit-learn's without. Then the whole of evaluate.py against reading the same
files and asking scikit-learn for the two scores of each label: what intervals, operating points, calibration and the
page cost. How often the intervals hold the truth is the matter of coverage.py.
"""

import contextlib
import io
import resource
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from rows import Row, compare_seconds, create_parser, finish
from sklearn.metrics import average_precision_score, roc_auc_score
from timing import take_turns

from catheters.commands.evaluation_options import main as evaluate
from catheters.evaluation.intervals import estimate
from catheters.evaluation.patients import Patients
from catheters.labels import RANZCR_LABELS

NUM_IMAGES, NUM_PATIENTS = 30_083, 3_255
POSITIVES = (79, 1138, 7240, 279, 529, 2748, 4797, 3195, 8460, 21324, 830)
"""Of RANZCR CLiP's labels, in their order."""
Scores = npt.NDArray[np.float64]


def main() -> int:
    """Measure both."""
    parser = create_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="taking turns (default: 5)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th image (default: all)")
    options = parser.parse_args()
    patients, targets, scores = make_up()
    data = MadeUp(patients[:: options.every], targets[:: options.every], scores[:: options.every])
    rows = [compare_scores(data, options.rounds), compare_evaluations(data, options.rounds)]
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


def compare_scores(data: MadeUp, num_rounds: int) -> Row:
    """Seconds of ROC AUC and average precision with their intervals, and of scikit-learn's without."""

    def with_intervals() -> None:
        patients = Patients(data.patients)
        for k in range(data.targets.shape[1]):
            for found in patients.ranking(data.targets[:, k], data.scores[:, k]):
                estimate(found)

    def without() -> None:
        for k in range(data.targets.shape[1]):
            for metric in (roc_auc_score, average_precision_score):
                metric(data.targets[:, k], data.scores[:, k])

    seconds, plain_seconds = take_turns([with_intervals, without], num_rounds, warm_up=1)
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    return compare_seconds(
        "evaluation",
        f"ROC AUC and AP with intervals, {len(data.patients):,} images",
        seconds,
        "without, by scikit-learn",
        plain_seconds,
    )


def compare_evaluations(data: MadeUp, num_rounds: int) -> Row:
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
        "evaluate.py with its page",
        seconds,
        "ROC AUC, AP by scikit-learn",
        plain_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
