"""`weight_column`: weights per image, through a whole run."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.run import train_run


@pytest.mark.slow
def test_weights_of_images(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them 1 change no bit; a 0 leaves an image out of the loss; other ones are another run."""
    table = Path(cached.dataset_folder) / "train.csv"
    copy = cached.run_folder.parent.parent / "weighted.csv"
    frame = pd.read_csv(table, dtype=str)
    frame.assign(w="1", other=[str(row % 3) for row in range(len(frame))]).to_csv(copy, index=False)
    plain = dataclasses.replace(cached, folds=(0,), epochs=1, run_name="plain")
    train_run(plain, fresh=False)
    weighted = dataclasses.replace(plain, label_table=str(copy.resolve()), weight_column="w", run_name="weighted")
    train_run(weighted, fresh=False)
    name = "fold0/predictions.csv"
    assert (weighted.run_folder / name).read_bytes() == (plain.run_folder / name).read_bytes()
    other = dataclasses.replace(weighted, weight_column="other", run_name="other")
    train_run(other, fresh=False)
    assert (other.run_folder / name).read_bytes() != (plain.run_folder / name).read_bytes()
    with pytest.raises(UserError, match="weight_column was 'w', is 'other'"):
        train_run(dataclasses.replace(other, run_name="weighted"), fresh=False)
