"""How often an external validation raises an alarm where nothing differs: python benchmarks/external.py.

Patients of RANZCR's eleven labels in number are made up, whose probabilities are right. Some are the run's own, whose
evaluation is made and frozen; others, of the same population, are the external ones. An alarm is any checked number of
any label that differs by more than chance, by Holm over all of them: 5 in 100 repeats at most are wanted. The last two
columns say how often the 95% interval of observed over expected, and of the calibration slope, holds the true 1.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from catheters.evaluation.evaluation import Choices, evaluate
from catheters.evaluation.external.measures import FrozenPredictions, Judged, LabelResult, compare
from catheters.evaluation.external.own_numbers import read_fold_thresholds, read_own_numbers
from catheters.evaluation.options import NO_CALIBRATION
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.results import write_metrics
from catheters.labels import RANZCR_LABELS
from catheters.runtime.progress import track

Floats = npt.NDArray[np.float64]

CENTRES = np.array([-4, -3, -1.2, -3.5, -3.2, -2.5, -1.8, -2.3, -1, 0.7, -3.3])
"""Of the logits of each label."""
STRENGTH = 1.6
"""Standard deviation of the logits: 0.64 of their variance is the patient's."""
SIZES = ((200, 100), (400, 300), (1500, 800))
"""Patients of the run's own, and external ones."""
NUM_FOLDS = 5


def draw(rng: np.random.Generator, num_patients: int) -> PredictionSet:
    """Patients of 1 to 12 images, which are alike in their probabilities and beyond them."""
    patient_of = np.repeat(np.arange(num_patients), np.minimum(rng.geometric(0.35, num_patients), 12))
    shape = len(patient_of), len(CENTRES)
    of_patients = rng.normal(size=(num_patients, len(CENTRES)))[patient_of]
    probabilities = expit(CENTRES + STRENGTH * (0.8 * of_patients + 0.6 * rng.normal(size=shape)))
    shared, single = rng.random((num_patients, len(CENTRES)))[patient_of], rng.random(shape)
    chance = np.where(rng.random((len(patient_of), 1)) < 0.4, shared, single)
    number = int(rng.integers(1_000_000_000))
    return PredictionSet(
        name="made up",
        labels=RANZCR_LABELS,
        uids=np.array([f"{number}-{image}" for image in range(len(patient_of))]),
        patient_ids=np.array([f"{number}-p{patient}" for patient in patient_of]),
        folds=patient_of % NUM_FOLDS,
        targets=(chance < probabilities).astype(np.float64),
        probabilities=probabilities,
    )


def validate(own: PredictionSet, external: PredictionSet, folder: Path) -> list[LabelResult]:
    """The external patients by what the evaluation of the run's own has frozen."""
    evaluation = evaluate(own, {}, {}, Choices(calibration=NO_CALIBRATION))
    file = folder / "metrics.json"
    write_metrics(file, evaluation, Path("predictions.csv"), "", "", "labels.csv", len(own))
    of_folds = read_fold_thresholds(file)
    thresholds = np.array([point.threshold for point in evaluation.points])
    probabilities = external.probabilities

    def judge(of_all: list[Floats]) -> Judged:
        predicted = np.mean([probabilities >= of_each for of_each in of_all], axis=0)
        return Judged(probabilities=probabilities, scores=probabilities, predicted=predicted)

    by_fold = [
        np.array([of_folds.get(label, {}).get(fold, np.nan) for label in own.labels]) for fold in range(NUM_FOLDS)
    ]
    predictions = FrozenPredictions(
        evaluated=external,
        frozen=judge([thresholds]),
        alike=(judge(by_fold),),
        has_threshold=~np.isnan(thresholds),
    )
    return compare(predictions, read_own_numbers(file))


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs=2, action="append", metavar=("OWN", "EXTERNAL"))
    options = parser.parse_args()
    print("own patients  external  repeats  with an alarm  observed / expected holds 1  slope holds 1")
    for num_own, num_external in options.sizes or SIZES:
        alarms: list[bool] = []
        held: dict[str, list[bool]] = {"observed_to_expected": [], "slope": []}
        with tempfile.TemporaryDirectory() as folder:
            for repeat in track(range(options.repeats), "validating", options.repeats, unit="repeat"):
                rng = np.random.default_rng(repeat)
                results = validate(draw(rng, num_own), draw(rng, num_external), Path(folder))
                alarms.append(any(result.alarms for result in results))
                for name, found in held.items():
                    intervals = [result.here[name] for result in results]
                    found += [of.low <= 1 <= of.high for of in intervals if of.has_interval]
        ratio, slope = (f"{np.mean(found):.3f}" for found in held.values())
        print(f"{num_own:12d}  {num_external:8d}  {options.repeats:7d}  {sum(alarms):13d}  {ratio:>27}  {slope:>13}")


if __name__ == "__main__":
    main()
