"""Which images a contact sheet shows."""

import numpy as np

from catheters.viz.image_selection import choose_images


def test_every_label_is_shown_by_as_few_images_as_chance_finds() -> None:
    labels = np.zeros((100, 4), dtype=np.bool_)
    labels[7, :3] = True  # the one image with three labels
    labels[20:60, 1] = True
    labels[93, 3] = True
    for seed in range(20):
        chosen = choose_images(labels, np.full(100, False), 2, seed)
        assert chosen.tolist() == [7, 93]
    assert labels[choose_images(labels, np.full(100, False), 30, 0)].any(axis=0).all()
    assert len(set(choose_images(labels, np.full(100, False), 30, 0).tolist())) == 30


def test_annotated_images_are_preferred() -> None:
    labels = np.zeros((50, 2), dtype=np.bool_)
    labels[:10, 0] = True
    is_annotated = np.isin(np.arange(50), [4, 30, 31])
    for seed in range(20):
        chosen = choose_images(labels, is_annotated, 5, seed).tolist()
        assert set(chosen[:3]) == {4, 30, 31}
        assert choose_images(labels, is_annotated, 1, seed).tolist() == [4]
    assert choose_images(labels, is_annotated, 5, 1).tolist() == choose_images(labels, is_annotated, 5, 1).tolist()
    assert len({tuple(choose_images(labels, is_annotated, 5, seed)) for seed in range(20)}) > 5


def test_more_images_than_there_are_and_no_labels() -> None:
    chosen = choose_images(np.zeros((6, 0), dtype=np.bool_), np.full(6, False), 100, 0)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4, 5]
    assert choose_images(np.zeros((0, 3), dtype=np.bool_), np.full(0, False), 5, 0).tolist() == []
