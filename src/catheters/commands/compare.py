"""`compare.py`: several ways to train, with several seeds each, and what may be concluded."""

import argparse
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from catheters.commands.command_line import program
from catheters.errors import UserError, counted
from catheters.evaluation.variants.comparison import compare_variants
from catheters.evaluation.variants.files import (
    CSV_FILE,
    JSON_FILE,
    PAGE_FILE,
    TEXT_FILE,
    write_csv,
    write_json,
)
from catheters.evaluation.variants.page import write_page
from catheters.evaluation.variants.tables import comparison_text
from catheters.io.files import UnreadableFileError, read_json, read_utf8, write_text
from catheters.runs.comparison.budget import with_equal_means
from catheters.runs.comparison.queue import Job, JobQueue
from catheters.runs.comparison.results import hashes_of_inputs, read_results, truth_of
from catheters.runs.comparison.variants import (
    CommonData,
    Variant,
    choose_common_folds,
    differing_settings,
    place_runs,
    read_common_data,
    read_variants,
)
from catheters.runs.comparison.workers import JobSettings, run_jobs, visible_gpus
from catheters.runtime.console import note, say, warn
from catheters.synthetic.writer import kind_of_images

FAILED_JOBS_STATUS = 1
"""Exit status of a comparison in which trainings have failed."""
MAX_NAME = 80
"""Letters of a name that is made of the variants'."""
FEW_SEEDS = 2


def compare(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train what is not trained yet, print the table and write the files of the comparison.

    Args:
        options: what `parse_options` made of the arguments.
        arguments: the command's own, for the page.

    Returns:
        The exit status: `FAILED_JOBS_STATUS` where trainings have failed.
    """
    variants = read_variants(options.variants, options.overrides)
    name = options.name or _default_name(options.variants, variants)
    variants = place_runs(variants, name)
    folds = choose_common_folds(variants, options.folds)
    data = read_common_data(variants)
    folder = Path(variants[0].settings.saved_models_folder)
    make_folder(folder, "comparison")
    if len(options.seeds) <= FEW_SEEDS:
        warn(
            f"{counted(len(options.seeds), 'seed')} says little about what other seeds would give; take three or more"
            if len(options.seeds) == 1
            else "two seeds say little about what other seeds would give; take three or more"
        )
    variants = with_equal_means(variants, options.equal, folder, folds, options.seeds[0])
    jobs = _make_jobs(variants, options.seeds, folds, folder)
    for of_job in {of_job.settings.run_name: of_job for of_job in jobs.values()}.values():
        of_job.check_folder()
    queue = JobQueue(folder)
    queue.fill(jobs, lambda job: jobs[job].is_finished)
    num_done = sum(of_job.is_finished for of_job in jobs.values())
    if num_done < len(jobs):
        _train(queue, jobs, num_done, folder, options.jobs)
    with queue.alone():
        return _report(options, variants, folds, data, jobs, queue, folder, arguments)


def make_folder(folder: Path, what: str) -> None:
    """Make the folder of a comparison, or of a search, unless it is there.

    Raises:
        UserError: it is a run's, or cannot be made.
    """
    if (folder / "settings.json").exists():
        raise UserError(f"{folder}: holds a run; give the {what} another --name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); set saved_models_folder") from None


def _default_name(sources: Sequence[str], variants: Sequence[Variant]) -> str:
    """Of the variants' file, or of all of them."""
    if len(sources) == 1:
        return "compare_" + re.sub(r"[^\w.-]+", "_", Path(sources[0]).stem)
    return "_".join(["compare", *(variant.slug for variant in variants)])[:MAX_NAME]


def _make_jobs(
    variants: Sequence[Variant], seeds: Sequence[int], folds: Sequence[int], folder: Path
) -> dict[Job, JobSettings]:
    """All jobs, in their order: what is finished first can be compared first."""
    return {
        Job(variant=variant.slug, seed=seed, fold=fold): JobSettings(
            settings=dataclasses.replace(variant.settings, run_name=variant.run_name(seed), seed=seed, folds=(fold,)),
            folder=folder,
        )
        for seed in seeds
        for fold in folds
        for variant in variants
    }


def _train(
    queue: JobQueue,
    jobs: Mapping[Job, JobSettings],
    num_done: int,
    folder: Path,
    num_jobs: int | None,
) -> None:
    gpus = visible_gpus([of_job.settings for of_job in jobs.values()])
    num_parallel = num_jobs or max(len(gpus), 1)
    where = f"{counted(len(gpus), 'GPU')}, " if gpus else ""
    done = f", {num_done} of them trained already" if num_done else ""
    note(f"{counted(len(jobs), 'job')}{done}; {where}{num_parallel} at a time -> {folder}")
    run_jobs(queue, jobs, lambda taken: jobs[taken.job], num_parallel, gpus)


def _report(
    options: argparse.Namespace,
    variants: Sequence[Variant],
    folds: Sequence[int],
    data: CommonData,
    jobs: Mapping[Job, JobSettings],
    queue: JobQueue,
    folder: Path,
    arguments: Sequence[str],
) -> int:
    """Print the table and write the files, unless they are of the same runs already."""
    finished = [job for job, of_job in jobs.items() if of_job.is_finished]
    failed = queue.errors(jobs)
    asked = repr(
        ([(variant.name, variant.settings) for variant in variants], options.seeds, folds, sorted(failed.items()))
    )
    inputs = hashes_of_inputs(data, jobs, finished, asked)
    if not _is_written(folder, inputs):
        comparison = compare_variants(
            read_results(variants, differing_settings(variants), data, jobs, finished, queue),
            truth_of(data, variants[0].name),
            name=folder.name,
            seeds=options.seeds,
            folds=folds,
            image_kind=kind_of_images(data.source.parent),
            notes=_notes(variants, options.equal),
            command=f"{program('compare.py')} {shlex.join(arguments)}",
        )
        (folder / JSON_FILE).unlink(missing_ok=True)  # written last: it says that all files are of these runs
        write_csv(folder / CSV_FILE, comparison)
        write_page(folder / PAGE_FILE, comparison)
        write_text(folder / TEXT_FILE, comparison_text(comparison) + "\n")
        write_json(folder / JSON_FILE, comparison, inputs)
    say(f"\n{read_utf8(folder / TEXT_FILE).rstrip()}")
    say(f"\nall numbers -> {folder / JSON_FILE}, {folder / CSV_FILE}\na page to look at -> {folder / PAGE_FILE}")
    return FAILED_JOBS_STATUS if failed else 0


def _is_written(folder: Path, inputs: Mapping[str, str]) -> bool:
    """Whether the files in the folder are of these inputs."""
    try:
        content = read_json(folder / JSON_FILE)
    except UnreadableFileError:
        return False
    files = (CSV_FILE, PAGE_FILE, TEXT_FILE)
    return (
        isinstance(content, dict)
        and content.get("inputs") == inputs
        and all((folder / name).is_file() for name in files)
    )


def _notes(variants: Sequence[Variant], equal: str | None) -> list[str]:
    """What has to be known beside the numbers."""
    epochs = [variant.settings.num_epochs for variant in variants]
    notes = []
    if equal is None and len(set(epochs)) > 1:
        notes.append("the variants have other numbers of epochs: a difference may be that of the training's length")
    if equal == "seconds":
        notes.append("epochs were chosen by a short probe, so that the times are equal only about; the table has them")
    return notes
