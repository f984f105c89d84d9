"""How often an interval over seeds and patients is wrong where nothing differs: python benchmarks/seeds.py.

Two variants that are the same are trained, in simulation, with several seeds each, and compared as compare.py does. A
score is that of the image, which all runs share, plus chance: of a variant and a patient, of a run, of a run and an
image. The share of comparisons whose 95% interval leaves out 0 should be 5%. With --effect, positives of the second
variant score higher by so much, and the share is how often that is found. No measure of speed, so `make bench` leaves
it out.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.scores import Scores, score
from catheters.evaluation.variants.seeds import MACRO, SeedDifference, compare_seeds

NUM_IMAGES, NUM_LABELS = 2, 2
"""Images of a patient; labels."""
PREVALENCE, DISTANCE = 0.4, 1.5
"""Share of positives, and by how much they score higher, in standard deviations of the images."""
CHANCES = {
    "image and seed": (0.0, 0.0, 0.7),
    "patients, images and seeds": (0.15, 0.4, 0.5),
    "mostly seeds": (0.4, 0.2, 0.3),
}
"""Standard deviations of the distance between runs, of variant and patient, of run and image."""


def simulate(
    rng: np.random.Generator,
    num_seeds: int,
    chances: tuple[float, float, float],
    *,
    num_patients: int = 60,
    effect: float = 0.0,
) -> dict[str, SeedDifference]:
    """One comparison of two variants."""
    of_run, of_patient, of_image = chances
    patients = np.repeat(np.arange(num_patients), NUM_IMAGES)
    shape = (len(patients), NUM_LABELS)
    targets = (rng.random(shape) < PREVALENCE).astype(np.float64)
    images = rng.normal(size=shape)
    numbered = Patients(patients)

    def run(shared: npt.NDArray[np.float64], distance: float) -> Scores:
        logits = (distance + rng.normal(0, of_run)) * targets + images + shared + rng.normal(0, of_image, shape)
        evaluated = PredictionSet(
            name="run",
            labels=tuple(f"label {k}" for k in range(NUM_LABELS)),
            uids=np.arange(len(patients)).astype(np.str_),
            patient_ids=patients.astype(np.str_),
            folds=None,
            targets=targets,
            probabilities=1 / (1 + np.exp(-logits)),
        )
        return score(evaluated, numbered)

    variants: list[Sequence[Scores]] = []
    for distance in (DISTANCE, DISTANCE + effect):
        shared = rng.normal(0, of_patient, (num_patients, NUM_LABELS))[patients]
        variants.append([run(shared, distance) for _ in range(num_seeds)])
    return compare_seeds(*variants)


def main() -> int:
    """Print a row per number of seeds and kind of chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="comparisons of each kind (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5], metavar="N", help="(default: 2 3 5)")
    parser.add_argument("--effect", type=float, default=0.0, help="of the second variant (default: none)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("share of 95% intervals that leave out 0: of the macro mean, of a label; mean difference of the macro mean")
    for num_seeds in options.seeds:
        for name, chances in CHANCES.items():
            found = [simulate(rng, num_seeds, chances, effect=options.effect) for _ in range(options.trials)]
            shares = []
            for label in (MACRO, "label 0"):
                estimates = [differences[label].estimate for differences in found]
                shares.append(np.mean([not estimate.low <= 0 <= estimate.high for estimate in estimates]))
            mean = np.mean([differences[MACRO].estimate.value for differences in found])
            print(f"{num_seeds} seeds, chance of {name}: {shares[0]:.1%}, {shares[1]:.1%}; {mean:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
