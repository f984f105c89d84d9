"""A run in stages: trainings one after the other, each of which goes on from the best weights of the one before."""

from collections.abc import Sequence

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.cache import open_cache
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError
from catheters.runs.build import build_table_source
from catheters.runs.extra_tables import read_extra_tables
from catheters.runs.run import is_long_enough, train_run
from catheters.runs.run_folder import move_aside
from catheters.runtime.console import say, silent
from catheters.runtime.host import process_rank
from catheters.training.manager import AnyExtension


def train_in_stages(settings: Settings, *, fresh: bool, extensions: Sequence[AnyExtension] = ()) -> None:
    """Train as `train_run` does, stage after stage where the settings have several.

    A stage is a run of its own, with `pretrained` and `pretrained_parts` set: what is trained is skipped, what was
    killed is resumed, within a stage and between two.

    Args:
        settings: the run's settings.
        fresh: move an earlier run of the same name, with all its stages, aside and start over.
        extensions: as for `train_run`.

    Raises:
        UserError: as `train_run`; or a later stage's cache is not there, said before the first one starts.
    """
    if not settings.stages:
        train_run(settings, fresh=fresh, extensions=extensions)
        return
    runs = settings.in_stages()
    is_first = process_rank() == 0
    with silent(True):
        for run in runs:
            _check_caches(run)
    if fresh and is_first and settings.run_folder.exists():
        say(f"moved the earlier run to {move_aside(settings.run_folder)}")
    _check_order(runs)
    for number, run in enumerate(runs, start=1):
        if is_first:
            say(f"stage {number} of {len(runs)}")
        train_run(run, fresh=False, extensions=extensions)


def _check_caches(run: Settings) -> None:
    """A stage's images have to be there, at its size."""
    tables = [(run, read_label_table(build_table_source(run))), *read_extra_tables(run)]
    for of_table, table in tables:
        open_cache(of_table.cache_file, table, build_preprocessing(of_table))


def _check_order(runs: Sequence[Settings]) -> None:
    """Refuse to train a stage on, on whose weights a later one has built.

    Raises:
        UserError: more epochs are asked of it, for example.
    """
    kind = "seed" if runs[0].all_data else "fold"
    numbers = runs[0].seeds_to_train if runs[0].all_data else runs[0].folds_to_train
    for position, run in enumerate(runs[:-1]):
        for number in numbers:
            earlier, later = (of.run_folder / f"{kind}{number}" for of in runs[position : position + 2])
            if later.exists() and not is_long_enough(run, earlier):
                raise UserError(
                    f"{run.run_folder}: {kind} {number} would be trained on, but stage {position + 2} has gone on from "
                    "it; set the stage as it was, choose another run_name, or --fresh to start over"
                )
