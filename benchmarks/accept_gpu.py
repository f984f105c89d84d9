"""Check on a CUDA GPU what a CPU cannot check: python benchmarks/accept_gpu.py

Meant to take about ten minutes on one GPU. It gives a table: what passes, what fails and why, what was measured, what
was skipped and why. Each check has a process of its own, so that one that fails, dies or hangs is a row of the table
and no more. Progress goes to stderr, the table to stdout, to benchmarks/results/accept_<host>.json and into
docs/performance.md. The exit status is 1 where a check fails. Models and images are synthetic: nothing here says how
well a model recognises anything.

  python benchmarks/accept_gpu.py                             all checks
  python benchmarks/accept_gpu.py --only amp-float16 export   these alone; rows of other checks stay
  python benchmarks/accept_gpu.py --dry-run                   the checks themselves, at small size on the CPU
"""

import argparse
import dataclasses
import functools
import inspect
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from acceptance import batches, graphs, inference, learning, precision, several, speed, steps, suite
from acceptance.check import Check, CheckRow, Machine, Status, run_check
from acceptance.processes import Died, run_apart
from bench import ACCEPTANCE, HERE, REPOSITORY, describe_machine, results_of_page, write_page

from catheters.commands.command_line import run_command
from catheters.errors import UserError
from catheters.io.files import read_json, write_json
from catheters.runtime.console import note, say

CHECKS: Mapping[str, Check] = {
    "gpu-tests": suite.gpu_tests,
    "amp-float16": functools.partial(learning.amp, dtype="float16"),
    "amp-bfloat16": functools.partial(learning.amp, dtype="bfloat16"),
    "losses-float16": functools.partial(precision.losses_of_families, dtype="float16"),
    "losses-bfloat16": functools.partial(precision.losses_of_families, dtype="bfloat16"),
    "planted-infinity": precision.planted_infinity,
    "skipped-steps": learning.skipped_steps,
    "types": precision.types,
    "tf32": precision.tf32,
    **{f"deterministic-{family}": functools.partial(steps.deterministic, backbone=family) for family in steps.FAMILIES},
    "price-of-deterministic": steps.price_of_deterministic,
    "kill-and-resume": learning.kill_and_resume,
    "kill-and-resume-graphs": functools.partial(learning.kill_and_resume, compile_mode="reduce-overhead"),
    "channels-last": functools.partial(steps.channels_last, backbone="efficientnet_b0"),
    "compiled": functools.partial(graphs.compiled, mode="default"),
    "compiled-graphs": functools.partial(graphs.compiled, mode="reduce-overhead"),
    "compiled-max-autotune": functools.partial(graphs.compiled, mode="max-autotune"),
    "draws-compiled": functools.partial(graphs.draws_of_graphs, mode="default"),
    "draws-graphs": functools.partial(graphs.draws_of_graphs, mode="reduce-overhead"),
    "nothing-kept": graphs.nothing_kept,
    "no-waiting-float16": functools.partial(steps.no_waiting, dtype="float16"),
    "no-waiting-bfloat16": functools.partial(steps.no_waiting, dtype="bfloat16"),
    "pinned-memory": steps.pinned_memory,
    "workers": learning.workers,
    "augmentation": batches.augmentation,
    "auto-batch": learning.auto_batch,
    "auto-run": learning.auto_run,
    "two-on-one": several.two_on_one,
    "out-of-memory": learning.out_of_memory,
    "large-normalise": batches.large_normalise,
    "large-augmentation": batches.large_augmentation,
    "large-batch-norm": batches.large_batch_norm,
    "large-forward": batches.large_forward,
    "large-gradients": batches.large_gradients,
    "profile": learning.profile_busy,
    "predictions": inference.predictions,
    "predictions-of-families": inference.predictions_of_families,
    "predict-script": inference.prediction_script,
    "heatmaps": inference.heatmaps,
    "export": inference.exported,
    **{
        f"training-{size}-{place}": functools.partial(speed.training, image_size=size, augment_on=place)
        for size in (512, 1024)
        for place in ("cpu", "device")
    },
    "predicting": speed.predicting,
    "more-ranks": several.more_ranks,
    "two-gpus": several.one_model,
    "two-gpus-graphs": several.graphs_of_ranks,
    "two-gpus-workers": several.workers_of_ranks,
    "sync-batch-norm": several.sync_batch_norm,
    "folds-parallel": several.folds_parallel,
}
"""Name of a check -> its function: a new check is a function in `acceptance/` and a line here."""
LIMIT_S = 300.0
WITHOUT_GPU = (
    "no CUDA GPU is seen, and this program checks one; --dry-run tries the checks themselves, at small size on the CPU"
)

WITHOUT_NVML = (
    "the GPUs cannot be counted by NVML (libnvidia-ml), so that CUDA was started, and the checks' processes cannot use "
    "it; nvidia-smi has to work here"
)


def main(arguments: Sequence[str], checks: Mapping[str, Check] = CHECKS) -> int:
    """Check, and write what came; returns the exit status.

    Args:
        arguments: of the command line.
        checks: those that there are.

    Raises:
        UserError: no GPU is seen, or it does not compute.
    """
    options = parse_options(arguments, checks)
    if options.dry_run:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nothing has asked for a GPU yet
    folder = Path(tempfile.mkdtemp(prefix="accept_gpu_"))
    machine, described = describe(folder, is_dry=options.dry_run)
    results = options.results or (folder if options.dry_run else HERE / "results")
    page = options.page
    if page is None:
        is_of_docs = options.results is None and not options.dry_run
        page = REPOSITORY / "docs" / "performance.md" if is_of_docs else results / "performance.md"
    file = results / f"{ACCEPTANCE}{options.host}.json"
    known = kept_rows(file, described)
    rows = []
    for number, name in enumerate(options.only, start=1):
        title = title_of(checks[name])
        note(f"{number}/{len(options.only)} {name}: {title}")
        started = time.monotonic()
        outcome = run_check(checks[name], machine, folder / f"{name}.log", options.limit)
        seconds = round(time.monotonic() - started, 1)
        rows.append(CheckRow(name=name, title=title, seconds=seconds, **dataclasses.asdict(outcome)))
        note(f"    {line_of(rows[-1])}")
        known[name] = dataclasses.asdict(rows[-1])
        results.mkdir(parents=True, exist_ok=True)
        write_json(file, {**described, "rows": [known[name] for name in checks if name in known]})
    write_page(page, *results_of_page(page, results), results)
    failed = any(row.status == "fail" for row in rows)
    say(table(rows))
    say(f"-> {file}, {page}")
    if failed:
        say(f"what the checks printed: {folder}/*.log")
    elif not options.dry_run:
        shutil.rmtree(folder)
    return int(failed)


def table(rows: Sequence[CheckRow]) -> str:
    """A line for each check, and how many of them came to what."""
    width = max(len(row.name) for row in rows) + 2
    counts = [f"{sum(row.status == status for row in rows)} {status}" for status in get_args(Status)]
    return "\n".join([*(f"{row.name:<{width}}{line_of(row)}" for row in rows), ", ".join(counts)])


def parse_options(arguments: Sequence[str], checks: Mapping[str, Check]) -> argparse.Namespace:
    """Parse the command line."""
    width = max(map(len, checks)) + 2
    names = "\n".join(f"  {name:<{width}}{title_of(check)}" for name, check in checks.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"checks\n\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="try the checks themselves, at small size on the CPU")
    parser.add_argument(
        "--only", nargs="+", choices=list(checks), default=list(checks), metavar="NAME", help="these checks alone"
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, metavar="S", help="seconds for each check (default: %(default)g)"
    )
    parser.add_argument(
        "--host", default=platform.node(), metavar="NAME", help="of the results (default: this machine's name)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="(default: benchmarks/results; of a dry run a new folder)",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="(default: docs/performance.md, or beside results that are elsewhere)"
    )
    return parser.parse_args(arguments)


def title_of(check: Check) -> str:
    """The first line of its docstring."""
    function = check.func if isinstance(check, functools.partial) else check
    return (inspect.getdoc(function) or "").partition("\n")[0]


def line_of(row: CheckRow) -> str:
    """The outcome in one line."""
    text = f"{row.found} ({row.note})" if row.found and row.note else row.found or row.note
    return f"{row.status:<9}{text}  [{row.seconds:.0f} s]"


def describe(folder: Path, *, is_dry: bool) -> tuple[Machine, dict[str, Any]]:
    """The machine, for the checks and for the results, found out by a process of its own: this one forks.

    Raises:
        UserError: no GPU is seen, or it does not compute.
    """

    def look() -> tuple[int, dict[str, Any] | str]:
        try:
            number = torch.cuda.device_count()
            if not number and not is_dry:
                return 0, WITHOUT_GPU
            return number, WITHOUT_NVML if number and torch.cuda._is_in_bad_fork() else describe_machine()
        except UserError as error:
            return 0, str(error)

    try:
        num_gpus, found = run_apart(look, folder / "machine.log", LIMIT_S)
    except Died as error:
        raise UserError(f"the GPU could not be asked for: {error}") from None
    if isinstance(found, str):
        shutil.rmtree(folder)
        raise UserError(found)
    machine = Machine(
        device=torch.device("cpu") if is_dry else torch.device("cuda", 0),
        is_dry=is_dry,
        num_gpus=num_gpus,
        folder=folder,
    )
    return machine, {**found, "driver": None if is_dry else driver_version(), "is_dry": is_dry}


def driver_version() -> str | None:
    """Of NVIDIA's driver; None where nvidia-smi does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else None


def kept_rows(file: Path, described: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of an earlier call by name, if they are of the same program and machine."""
    if not file.exists():
        return {}
    earlier = read_json(file)
    is_known = not str(described["git_commit"]).endswith(("None", "-dirty"))
    same = is_known and all(earlier.get(key) == described[key] for key in described if key != "date")
    return {row["name"]: row for row in earlier["rows"]} if same else {}


if __name__ == "__main__":
    run_command(main)
