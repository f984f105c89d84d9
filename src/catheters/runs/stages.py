"""A run in stages: trainings one after the other, each of which goes on from the best weights of the one before."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.cache import open_cache
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError
from catheters.runs.build import build_table_source
from catheters.runs.data_checks import check_global_batch
from catheters.runs.datasets import load_data
from catheters.runs.earlier_runs.teacher import find_teacher
from catheters.runs.extra_tables import read_extra_tables, with_extra_tables
from catheters.runs.preflight import check_choices
from catheters.runs.run import Stage, is_long_enough, train_run
from catheters.runs.run_folder import check_run_folder, only_process
from catheters.runtime.console import say, silent
from catheters.runtime.distributed import joined_torchrun
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
        UserError: as `train_run`; what can be said of later stages is said before the first one starts.
    """
    if not settings.stages:
        train_run(settings, fresh=fresh, extensions=extensions)
        return
    runs = settings.in_stages()
    with contextlib.ExitStack() as lock:
        with joined_torchrun() as torchrun, silent(True):  # which waits in the end for all ranks
            is_first = torchrun.rank == 0
            for position, run in enumerate(runs):
                _check_stage(run, [earlier.run_folder for earlier in runs[:position]], torchrun.count)
            if is_first:
                lock.enter_context(only_process(settings.run_folder))
                if not fresh:
                    _check_folders(runs)
        for number, run in enumerate(runs, start=1):
            if is_first:
                say(f"stage {number} of {len(runs)}")
            stage = Stage(number=number, run_folder=settings.run_folder)
            train_run(run, fresh=fresh and number == 1, extensions=extensions, stage=stage)


def _check_stage(run: Settings, earlier: Sequence[Path], num_ranks: int) -> None:
    """What a stage names has to exist, and its images to be there, at its size.

    Args:
        run: the stage's settings.
        earlier: run folders of those before it, which will be trained by then.
        num_ranks: processes that torchrun has started.
    """
    check_choices(run.with_random_weights() if earlier else run)
    check_global_batch(run, 1 if run.folds_parallel else num_ranks)
    tables = [(run, read_label_table(build_table_source(run))), *read_extra_tables(run)]
    for of_table, table in tables:
        open_cache(of_table.cache_file, table, build_preprocessing(of_table))
    if run.teacher is not None and Path(run.teacher).resolve() not in [folder.resolve() for folder in earlier]:
        find_teacher(run, with_extra_tables(run, load_data(run)))


def _check_folders(runs: Sequence[Settings]) -> None:
    """Refuse to train a stage on, on whose weights a later one has built, or where a later one cannot be trained.

    Raises:
        UserError: more epochs are asked of it, for example; or a folder holds something else.
    """
    for run in runs[1:]:
        if run.batch_size != "auto":  # else another learning rate follows from it, once it is chosen
            check_run_folder(run)
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
