"""`catheters.train`: the same run as the command's, from a notebook or a thread."""

import dataclasses
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pytorch_pfn_extras.training.extension import Extension
from sklearn.metrics import roc_auc_score

import catheters
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from tests.processes import outcome

pytestmark = pytest.mark.slow  # each test trains

REPOSITORY = Path(__file__).parents[2]


def test_a_thread_and_the_command_give_the_same_bits(cached: Settings, tmp_path: Path) -> None:
    """With DataLoader workers, dropout and early stopping; bit for bit."""
    settings = dataclasses.replace(cached, num_workers=1, drop_rate=0.3, run_name="in_python")
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(catheters.train, settings).result()
    config = tmp_path / "by_command.py"
    by_command = settings_to_json(dataclasses.replace(settings, run_name="by_command"))
    config.write_text(
        f"from catheters.config.loading import settings_from_json\nsettings = settings_from_json({by_command!r}, '')\n"
    )
    subprocess.run([sys.executable, REPOSITORY / "train.py", "--config", config], check=True, capture_output=True)
    assert outcome(result.folder) == outcome(Path(settings.saved_models_folder) / "by_command")


def test_the_result_is_what_the_files_hold(cached: Settings) -> None:
    """Scores by scikit-learn from the predictions; a second call finds all trained and gives the same."""
    result = catheters.train(cached)
    assert result.folder == cached.run_folder
    assert [model.number for model in result.models] == list(cached.folds_to_train)
    labels = list(cached.label_columns)
    truth = pd.read_csv(Path(cached.dataset_folder) / cached.label_table).set_index(cached.uid_column)
    for model in result.models:
        assert model.predictions is not None
        predicted = pd.read_csv(model.predictions, dtype={cached.uid_column: str}).set_index(cached.uid_column)
        true = truth.loc[predicted.index, labels]
        aucs = [roc_auc_score(true[label], predicted[label]) for label in labels if true[label].nunique() == 2]
        assert model.macro_auc == pytest.approx(sum(aucs) / len(aucs), abs=1e-6)
        assert torch.load(model.checkpoint, weights_only=True)["epoch"] == model.epoch
    assert result.predictions is not None
    assert len(pd.read_csv(result.predictions)) == len(truth)
    again = catheters.train(cached)
    assert (again, again.models) == (result, result.models)


def test_the_result_of_training_on_all_data(cached: Settings) -> None:
    settings = dataclasses.replace(cached, all_data=True, seeds=(3, 5), early_stop=0)
    result = catheters.train(settings)
    assert [(model.number, model.epoch, model.macro_auc) for model in result.models] == [
        (3, settings.num_epochs, None),
        (5, settings.num_epochs, None),
    ]
    assert result.predictions is None
    assert catheters.load(result.folder, device="cpu").labels == settings.label_columns


def test_two_threads(cached: Settings) -> None:
    """A second training, while the first one is in an epoch, is refused; the first one finishes well."""
    trains, may_go_on = threading.Event(), threading.Event()

    class Hold(Extension):
        name = "hold"
        trigger = (1, "iteration")

        def __call__(self, manager: Any) -> None:
            trains.set()
            may_go_on.wait()

    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(catheters.train, cached, [Hold()])
        trains.wait()
        for settings in (cached, dataclasses.replace(cached, run_name="another")):
            with pytest.raises(UserError, match="this process trains another model already"):
                catheters.train(settings)
        may_go_on.set()
        assert first.result().predictions is not None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("config.py", "settings: str was given, catheters.Settings is expected; catheters.load_settings"),
        ({"run_name": "x"}, "settings: dict was given"),
        (Settings(), "run_name is not set"),
    ],
)
def test_what_is_no_settings(wrong: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        catheters.train(wrong)


def test_a_config_file_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from catheters import Settings\nsettings = Settings(image_size=64)\n")
    settings = catheters.load_settings(str(file))
    assert (settings.image_size, settings.run_name) == (64, "mine")
