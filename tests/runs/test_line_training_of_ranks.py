"""Training with lines by several ranks."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_pfn_extras.training.extension import Extension

from catheters.config.settings import Settings
from catheters.runs.run import train_run
from catheters.runtime.host import process_rank
from catheters.training.extensions.log import read_epochs
from tests.processes import Training, environments_of_ranks
from tests.runs.test_line_training import LINES


class WeightsOfRank(Extension):
    """Writes the line decoder's parameters of its own rank, each epoch anew."""

    name = "weights_of_rank"
    trigger = (1, "epoch")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, manager: Any) -> None:
        (model,) = manager.raw_models.values()
        decoder = {name: value.detach() for name, value in model.named_parameters() if "decoder." in name}
        torch.save(decoder, self.folder / f"epoch{manager.epoch}_rank{process_rank()}.pt")


@pytest.mark.slow
def test_two_ranks_learn_lines_as_one(cached: Settings, tmp_path: Path) -> None:
    """Each rank sees half of a batch; a decoder whose gradients were not shared would part from the other rank's.

    The losses are those of one process but for the decoder's batch norm, which follows each rank's half.
    """
    settings = dataclasses.replace(cached, **LINES, epochs=2, init_lr=1e-4)  # where a difference does not grow
    weights = tmp_path / "weights"
    weights.mkdir()
    trainings = [
        Training(settings, tmp_path / f"out{rank}", environment, [WeightsOfRank(weights)])
        for rank, environment in enumerate(environments_of_ranks(2))
    ]
    assert [training.wait() for training in trainings] == [0, 0], "\n".join(training.text for training in trainings)
    of_first, of_second = ([torch.load(weights / f"epoch{epoch}_rank{rank}.pt") for epoch in (1, 2)] for rank in (0, 1))
    for first, second in zip(of_first, of_second, strict=True):
        assert first.keys() == second.keys() and len(first) > 4
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
    assert all(not torch.equal(value, of_first[1][name]) for name, value in of_first[0].items())
    log = read_epochs(settings.run_folder / "fold0")
    one = dataclasses.replace(settings, run_name="one")
    train_run(one, fresh=False)
    expected = read_epochs(one.run_folder / "fold0")
    for entry, other in zip(log, expected, strict=True):
        for term in ("lines", "tips"):
            assert entry[f"train/loss/{term}"] == pytest.approx(other[f"train/loss/{term}"], rel=0.1)
