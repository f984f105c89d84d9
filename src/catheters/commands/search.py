"""`compare.py --search`: trials of settings, of which the best is a variant to be compared."""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from catheters.commands.command_line import program
from catheters.commands.compare import FAILED_JOBS_STATUS, make_folder
from catheters.commands.compare_options import DEFAULT_SEEDS
from catheters.config.settings import Settings
from catheters.errors import counted
from catheters.evaluation.search.files import CSV_FILE, PAGE_FILE, write_csv, write_page
from catheters.evaluation.search.results import SearchResult
from catheters.evaluation.search.tables import search_text
from catheters.runs.build import build_table_source
from catheters.runs.comparison.queue import TakenJob
from catheters.runs.comparison.variants import choose_common_folds, place_runs
from catheters.runs.comparison.workers import run_jobs, visible_gpus
from catheters.runs.search.results import BASE_FILE, BEST_FILE, read_trials, write_configs
from catheters.runs.search.space import Range, Search, check_trials, read_search
from catheters.runs.search.study import SearchQueue, TrialJob, definition_of
from catheters.runs.search.trials import TrialSettings
from catheters.runtime.console import note, say
from catheters.synthetic.writer import kind_of_images


def search(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train the trials that are not trained yet, print the best ones and write the files of the search.

    Args:
        options: what `parse_options` made of the arguments.
        arguments: the command's own, for the page.

    Returns:
        The exit status: `FAILED_JOBS_STATUS` where trials have failed.
    """
    found = read_search(options.search, options.overrides)
    name = options.name or "search_" + re.sub(r"[^\w.-]+", "_", options.search.stem)
    (placed,) = place_runs([found.base], name)
    folds = choose_common_folds([placed], options.folds or placed.settings.folds_to_train[:1])
    (seed,) = options.seeds
    folder = Path(placed.settings.saved_models_folder)
    base = dataclasses.replace(placed.settings, folds=folds, seed=seed)
    check_trials(found, base)
    make_folder(folder, "search")
    queue = SearchQueue(folder, seed, first=found.first_parameters())
    queue.define(definition_of(base, found.space, folds, seed))
    jobs = [TrialJob(number=number) for number in range(options.trials)]
    queue.fill(jobs, lambda job: True)  # a trial whose run folder was deleted has its score
    _train(queue, jobs, found, base, options.jobs)
    with queue.alone():
        return _report(options, arguments, found, base, queue, jobs)


def _train(queue: SearchQueue, jobs: Sequence[TrialJob], found: Search, base: Settings, num_jobs: int | None) -> None:
    """Train the trials that are left, here and in other processes of the same command."""
    num_done = sum(state.is_finished() for state in queue.states(jobs).values())
    if num_done == len(jobs):
        return
    folder = Path(base.saved_models_folder)
    gpus = visible_gpus([base])
    num_parallel = num_jobs or max(len(gpus), 1)
    where = f"{counted(len(gpus), 'GPU')}, " if gpus else ""
    done = f", {num_done} of them done already" if num_done else ""
    note(f"{counted(len(jobs), 'trial')}{done}; {where}{num_parallel} at a time -> {folder}")

    def settings_of(taken: TakenJob[TrialJob]) -> TrialSettings:
        return TrialSettings.of(taken, base, queue.suggest(taken, found.space), folder)

    run_jobs(queue, jobs, settings_of, num_parallel, gpus)


def _report(
    options: argparse.Namespace,
    arguments: Sequence[str],
    found: Search,
    base: Settings,
    queue: SearchQueue,
    jobs: Sequence[TrialJob],
) -> int:
    """Print the table and write the files."""
    folder = Path(base.saved_models_folder)
    result = SearchResult(
        name=folder.name,
        trials=read_trials(queue, jobs, found.space),
        space={name: str(dimension) for name, dimension in found.space.items()},
        log_settings=frozenset(
            name for name, dimension in found.space.items() if isinstance(dimension, Range) and dimension.is_log
        ),
        folds=base.folds_to_train,
        seed=base.seed,
        is_base_first=bool(found.first_parameters()),
        image_kind=kind_of_images(build_table_source(base).file.parent),
        command=f"{program('compare.py')} {shlex.join(arguments)}",
        comparison=_comparison_command(found, folder, base),
    )
    write_csv(folder / CSV_FILE, result)
    write_page(folder / PAGE_FILE, result)
    write_configs(folder, found, result)
    say(f"\n{search_text(result)}")
    say(f"\nall trials -> {folder / CSV_FILE}\na page to look at -> {folder / PAGE_FILE}")
    return FAILED_JOBS_STATUS if result.failed else 0


def _comparison_command(found: Search, folder: Path, base: Settings) -> str:
    """What compares the best trial with the base: on folds that no trial was scored on, where there are any."""
    files = [str(folder / name) for name in (BASE_FILE, BEST_FILE)]
    others = [fold for fold in found.base.settings.folds_to_train if fold not in base.folds_to_train]
    command = [*files, "--seeds", *map(str, DEFAULT_SEEDS)]
    command += ["--folds", *map(str, others)] if others else []
    return f"{program('compare.py')} {shlex.join(command)}"
