"""Which images are shown."""

import numpy as np
import numpy.typing as npt


def choose_images(
    labels: npt.NDArray[np.bool_], is_annotated: npt.NDArray[np.bool_], num_images: int, seed: int
) -> npt.NDArray[np.intp]:
    """Choose images that together show every label, then others.

    As long as a label is not shown, the image with most such labels is next: one that is annotated where several have
    as many. What room is left goes to other images, the annotated ones before the rest. Chance decides between equals.

    Args:
        labels: (N, K) whether an image has a label.
        is_annotated: (N,) whether there is something to draw over each image.
        num_images: how many are wanted.
        seed: what decides chance.

    Returns:
        (min(N, num_images),) positions, the annotated images first, each part in the order of choice.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(~is_annotated[order], kind="stable")]
    chosen: list[int] = []
    is_waiting = labels.any(axis=0)
    while is_waiting.any() and len(chosen) < num_images:
        num_new = labels[order][:, is_waiting].sum(axis=1)
        best = int(order[num_new.argmax()])  # the first of the best: annotated, where one of them is
        chosen.append(best)
        is_waiting &= ~labels[best]
    is_chosen = np.zeros(len(labels), dtype=np.bool_)
    is_chosen[chosen] = True
    chosen += order[~is_chosen[order]].tolist()
    wanted = np.array(chosen[:num_images], dtype=np.intp)
    return wanted[np.argsort(~is_annotated[wanted], kind="stable")]
