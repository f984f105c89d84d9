"""`python -m catheters.commands.search_trial`: one trial of a search, as `compare.py --search` starts it."""

import dataclasses
from pathlib import Path

from catheters.commands.command_line import run_command
from catheters.commands.train import MAX_KEPT_BYTES
from catheters.config.loading import load_settings
from catheters.runs.search.trials import TrialSettings, train_trial
from catheters.runtime.host import keep_freed_memory


def main(arguments: list[str]) -> int:
    """Train a trial, by its config, the search's folder, its id in the study, and the folds. Returns 0."""
    config, folder, trial_id, *folds = arguments
    settings = dataclasses.replace(load_settings(config), folds=tuple(map(int, folds)))
    keep_freed_memory(MAX_KEPT_BYTES)
    train_trial(TrialSettings(settings=settings, folder=Path(folder), trial_id=int(trial_id), values={}))
    return 0


if __name__ == "__main__":
    run_command(main)
