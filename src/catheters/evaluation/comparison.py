"""Two models on the same images: their scores, the paired differences, and whether these are more than chance."""

from dataclasses import dataclass

from catheters.evaluation.caveats import Caveat
from catheters.evaluation.paired_tests import PairedTests, compare_models
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.scores import Scores, difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        first: the other one.
        second: the one that the page is about.
        differences: second minus first.
        tests: whether they are more than chance.
        caveats_of_first: what has to be known of the other one.
    """

    first: Scores
    second: Scores
    differences: Scores
    tests: PairedTests
    caveats_of_first: tuple[Caveat, ...] = ()


def compare(
    first: PredictionSet,
    second: PredictionSet,
    scores: tuple[Scores, Scores],
    seed: int,
    caveats_of_first: tuple[Caveat, ...] = (),
) -> Comparison:
    """Compare two models of the same images, in the same order.

    Args:
        first: the other one.
        second: the one that it is compared with.
        scores: of both, of the same patients.
        seed: of the permutations.
        caveats_of_first: what has to be known of the other one.
    """
    return Comparison(
        first=scores[0],
        second=scores[1],
        differences=difference(*scores),
        tests=compare_models(first, second, seed),
        caveats_of_first=caveats_of_first,
    )
