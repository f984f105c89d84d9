"""What a job finds in its run folder: its own run, or another one."""

import dataclasses
from pathlib import Path

import pytest

from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.errors import SettingsError
from catheters.runs.comparison.workers import JobSettings


def test_a_run_in_stages_is_known_by_its_last_one(settings: Settings, tmp_path: Path) -> None:
    """Whose settings the run folder has; a change of the other stage's is for the run itself to find."""
    staged = dataclasses.replace(
        settings,
        saved_models_folder=str(tmp_path),
        run_name="staged",
        folds=(1,),
        stages=({"image_size": 32}, {"image_size": 64, "init_lr": 1e-4}),
    )
    (staged.run_folder / "fold1").mkdir(parents=True)
    (staged.run_folder / "fold1" / "best.pt").write_bytes(b"weights")
    (staged.run_folder / "settings.json").write_text(settings_to_json(staged.in_stages()[-1]))
    JobSettings(settings=staged, folder=tmp_path).check_folder()
    other = dataclasses.replace(staged, stages=(staged.stages[0], {"image_size": 64, "init_lr": 2e-4}))
    with pytest.raises(SettingsError, match=r"holds a run of other settings: init_lr was 0\.0001, is 0\.0002;"):
        JobSettings(settings=other, folder=tmp_path).check_folder()
