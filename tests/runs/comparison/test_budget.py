"""Equal means: how many epochs each variant gets."""

import dataclasses

import pytest

from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.comparison.budget import with_equal_means
from catheters.runs.comparison.variants import Variant


def variant(name: str, settings: Settings) -> Variant:
    return Variant(name=name, source=name, settings=settings)


def epochs_of(first: Settings, other: Settings, kind: str | None = "images") -> tuple[int, int | None]:
    """Epochs and `cosine_epochs` of the other one."""
    variants = [variant("first", first), variant("other", other)]
    _, found = with_equal_means(variants, kind, first.run_folder, (0, 1), seed=0)
    return found.settings.num_epochs, found.settings.cosine_epochs


def test_as_many_images(cached: Settings) -> None:
    first = dataclasses.replace(cached, cosine_epochs=4, early_stop=0)  # 5 epochs
    longer = dataclasses.replace(first, cosine_epochs=11)
    assert epochs_of(first, longer) == (5, 4)  # warm-up 1, and the cosine over what is left
    assert epochs_of(first, dataclasses.replace(first, schedule="constant", epochs=7))[0] == 5
    assert epochs_of(first, dataclasses.replace(first, epochs=3)) == (5, 4)
    # A second table as large as the first brings each epoch 40 images beside the 20 of the other fold.
    table = {"dataset_folder": cached.dataset_folder, "cache_name": "tiny2", "shares_ids": False}
    cache, second = cached.cache_file, cached.cache_file.with_name("tiny2_32.npy")
    for one, two in ((cache, second), (cache.with_suffix(".json"), second.with_suffix(".json"))):
        two.write_bytes(one.read_bytes())
    in_fold = epochs_of(first, dataclasses.replace(first, extra_tables=(table,)))[0]
    assert in_fold < 5


def test_what_cannot_be_equal(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    first = dataclasses.replace(cached, cosine_epochs=4, early_stop=0)
    with pytest.raises(UserError, match="other: early_stop=2 ends folds at epochs of their own"):
        epochs_of(first, dataclasses.replace(first, early_stop=2))
    with pytest.raises(UserError, match="other: --equal images does not know how to divide epochs among stages"):
        epochs_of(first, dataclasses.replace(first, stages=({"image_size": 32},)))
    with pytest.raises(UserError, match="equal means leave it 5 epochs, no more than its warm-up of 6"):
        epochs_of(first, dataclasses.replace(first, warmup_epochs=6))
    assert epochs_of(first, dataclasses.replace(first, cosine_epochs=9), None) == (10, 9)
    assert "warning: the variants have other numbers of epochs (first 5, other 10)" in capsys.readouterr().err
