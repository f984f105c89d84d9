"""`compile_mode`: the same results but for rounding, checkpoints without a trace of it, no compiler."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.runs.build import build_step
from catheters.training.extensions.log import read_epochs
from tests.conftest import assert_user_error, run_script
from tests.processes import run_in_fork, train_with_ranks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")]


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulation_steps": 2, "clip_grad_norm": 0.5}, {"grad_checkpointing": True, "mixup_alpha": 0.4}],
    ids=["plain", "accumulated", "checkpointed"],
)
def test_a_compiled_step_computes_the_same(settings: Settings, changes: dict[str, Any]) -> None:
    run_in_fork(lambda: compare_steps(settings, changes))


def compare_steps(settings: Settings, changes: dict[str, Any]) -> None:
    settings = dataclasses.replace(
        settings, optimizer="momentum", optimizer_params={"momentum": 0.9}, init_lr=0.01, ema_decay=0.9, **changes
    )
    steps = []
    for mode in (None, "default"):
        torch.manual_seed(0)
        model = build_classifier(settings, 0.5, 0.25)
        steps.append(build_step(dataclasses.replace(settings, compile_mode=mode), model, 2, torch.device("cpu")))
    plain, compiled = steps
    torch.manual_seed(4)
    for _ in range(4):
        images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
        batch = Batch(images=images, targets=torch.randint(0, 2, (4, 11)).float())
        assert torch.allclose(compiled(batch).loss, plain(batch).loss, rtol=1e-4)
    for expected, got in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        assert torch.allclose(got, expected, rtol=1e-2, atol=1e-4)
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    assert not any("_orig_mod" in name for name in compiled.scored_model.state_dict())


def test_two_ranks_with_compiled_models(cached: Settings, tmp_path: Path) -> None:
    """Gradients are still reduced: the losses are those of two ranks whose models are not compiled."""
    settings = dataclasses.replace(
        cached,
        backbone_model="test_convnext",
        folds=(1,),
        batch_size=4,
        accumulation_steps=2,
        cosine_epochs=2,
    )
    losses = []
    for mode in (None, "default"):
        of_mode = dataclasses.replace(settings, compile_mode=mode, run_name=f"mode{mode}")
        (tmp_path / of_mode.run_name).mkdir()
        train_with_ranks(of_mode, tmp_path / of_mode.run_name, 2)
        log = read_epochs(of_mode.run_folder / "fold1")
        losses.append([(entry["train/loss"], entry["val/loss"]) for entry in log])
        checkpoint = torch.load(of_mode.run_folder / "fold1" / "best.pt", weights_only=True)
        assert checkpoint["model"].keys() == build_classifier(settings, 0.5, 0.25).state_dict().keys()
    assert len(losses[0]) == 3
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_a_model_that_cannot_be_compiled(
    cached: Settings, write_config: Callable[[Settings], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, without a compiler."""
    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", cached.cache_folder)
    config = write_config(dataclasses.replace(cached, compile_mode="default"))
    assert_user_error(
        run_script("train.py", "--config", config),
        "compile_mode=default: torch could not compile test_resnet (InvalidCxxCompiler: No working C++ compiler found",
        "a CPU needs a C++ compiler, a GPU Triton; or set compile_mode=None",
    )
    assert not cached.run_folder.exists()
