"""benchmarks/accept_gpu.py: each check is a row whatever becomes of it, and the checks themselves run on a CPU."""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from catheters.errors import UserError
from tests import hangs
from tests.conftest import REPOSITORY

TAKE_LONG = {
    *("gpu-tests", "more-ranks", "two-gpus", "folds-parallel", "predict-script"),  # start further processes
    *("amp-bfloat16", "losses-bfloat16", "no-waiting-bfloat16", "training-1024-cpu", "training-1024-device"),
    *(f"deterministic-{family}" for family in ("rexnet_100", "seresnet50", "efficientnet_b0")),  # as others on a CPU
}
"""Checks that the dry run of the tests leaves out."""


@pytest.fixture
def accept(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with what lies beside it."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("accept_gpu")


@pytest.fixture
def check(accept: ModuleType) -> ModuleType:
    """What a check is."""
    return importlib.import_module("acceptance.check")


def machine_of(check: ModuleType, folder: Path) -> Any:
    return check.Machine(device=torch.device("cpu"), is_dry=True, num_gpus=0, folder=folder)


def test_every_outcome_is_a_row(accept: ModuleType, check: ModuleType, tmp_path: Path) -> None:
    def raises(machine: Any) -> Any:
        """Something | else."""
        print("this goes to its log")
        raise ValueError("two\nlines")

    def dies(machine: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def lacks(machine: Any) -> Any:
        raise check.NotHere("needs two GPUs")

    checks = {
        "passes": lambda machine: check.judge(True, "1 of 1", "all"),
        "fails": lambda machine: check.judge(False, "0 of 1", "all"),
        "raises": raises,
        "dies": dies,
        "measures": lambda machine: check.Outcome(status="number", found="3 images/s"),
        "lacks": lacks,
    }
    arguments = ["--dry-run", "--results", str(tmp_path), "--host", "here"]
    assert accept.main(arguments, checks) == 1
    written = json.loads((tmp_path / "accept_here.json").read_text())
    assert (written["is_dry"], written["driver"], written["hardware"]["gpus"]) == (True, None, [])
    rows = {row["name"]: (row["status"], row["found"], row["note"]) for row in written["rows"]}
    died = rows.pop("dies")
    assert died[:2] == ("fail", "")
    assert died[2].startswith("its process died (SIGKILL); ")
    assert "this goes to its log" in Path(died[2].split()[4]).with_name("raises.log").read_text()
    assert rows == {
        "passes": ("pass", "1 of 1", "all"),
        "fails": ("fail", "0 of 1", "all"),
        "raises": ("fail", "", "ValueError: two lines"),
        "measures": ("number", "3 images/s", ""),
        "lacks": ("skipped", "", "needs two GPUs"),
    }
    page = (tmp_path / "performance.md").read_text()
    assert "## Dry run of the checks of a GPU, on a CPU" in page
    assert "**Not measured: a GPU.**" not in page
    assert "| `raises`: Something \\| else. | fail |  | ValueError: two lines |" in page
    assert accept.main([*arguments, "--only", "passes", "lacks"], checks) == 0


@pytest.mark.slow
def test_a_check_that_never_ends(check: ModuleType, tmp_path: Path) -> None:
    """Nor does a process that it has started outlive it."""

    def never_ends(machine: Any) -> Any:
        # In a session of its own, as torchrun starts its ranks.
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
        (tmp_path / "pid").write_text(str(started.pid))
        signal.pause()

    outcome = check.run_check(never_ends, machine_of(check, tmp_path), tmp_path / "log", 2.0)
    assert outcome.status == "fail"
    assert outcome.note.startswith("not done after 2 s (--limit); ")
    status = Path("/proc") / (tmp_path / "pid").read_text() / "status"
    hangs.wait_until(lambda: not status.exists() or "State:\tZ" in status.read_text(), status.read_text)


def test_rows_of_earlier_calls_are_kept(accept: ModuleType, tmp_path: Path) -> None:
    """Of the same program on the same machine."""
    described = {"date": "2026-01-02", "git_commit": "abc", "device": "GPU", "is_dry": False}
    row = {"name": "export", "status": "pass"}
    file = tmp_path / "accept_here.json"
    assert accept.kept_rows(file, described) == {}
    file.write_text(json.dumps({**described, "date": "2026-01-01", "rows": [row]}))
    assert accept.kept_rows(file, described) == {"export": row}
    for other in ({"git_commit": "abd"}, {"device": "another GPU"}, {"is_dry": True}, {"git_commit": "abc-dirty"}):
        assert accept.kept_rows(file, {**described, **other}) == {}
    file.write_text(json.dumps({**described, "git_commit": None, "rows": [row]}))
    assert accept.kept_rows(file, {**described, "git_commit": None}) == {}


def test_without_a_gpu(accept: ModuleType) -> None:
    with pytest.raises(UserError, match=r"^no CUDA GPU is seen, and this program checks one; --dry-run tries [^\n]*$"):
        accept.main([])


@pytest.mark.slow
def test_processes_of_checks_may_use_a_gpu() -> None:
    """No import has started CUDA, after which a process that is forked cannot use it."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import accept_gpu, pathlib, torch; "
        "from acceptance.processes import run_apart; "
        "print(run_apart(torch.cuda._is_in_bad_fork, pathlib.Path('/dev/null'), 60))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "False\n"


def test_every_check_has_a_title(accept: ModuleType) -> None:
    assert all(accept.title_of(check).endswith(".") for check in accept.CHECKS.values())
    assert set(accept.CHECKS) > TAKE_LONG


def test_halves_of_a_batch_by_hand(accept: ModuleType) -> None:
    """Of what looks at each image alone the difference is 0, of what takes out the mean of the batch it is not."""
    batches = importlib.import_module("acceptance.batches")
    images = torch.tensor([0.0, 1.0, 4.0, 9.0])
    assert batches._largest_difference(lambda batch: 2 * batch, images) == 0
    # Means: 3.5 of all, 0.5 of the first two, 6.5 of the others.
    assert batches._largest_difference(lambda batch: batch - batch.mean(), images) == 3


def test_losses_that_are_alike(accept: ModuleType) -> None:
    alike = importlib.import_module("acceptance.steps").alike
    assert alike({"a": [1.0, 0.5], "b": [1.01, 0.5]}).status == "pass"
    assert alike({"a": [1.0, 0.5], "b": [1.0, 0.52]}).status == "fail"  # 4% apart
    assert alike({"a": [1.0, 1.0], "b": [1.0, 1.0]}).status == "fail"  # learns nothing


@pytest.mark.slow
def test_dry_run(accept: ModuleType, tmp_path: Path) -> None:
    """The checks pass on a CPU, or say that they need a GPU."""
    names = [name for name in accept.CHECKS if name not in TAKE_LONG]
    arguments = ["--dry-run", "--results", str(tmp_path), "--host", "here", "--only", *names]
    done = subprocess.run(
        [sys.executable, "benchmarks/accept_gpu.py", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "accept_here.json").read_text())["rows"]}
    assert list(rows) == names
    for name, row in rows.items():
        assert row["status"] != "skipped" or row["note"].startswith("needs "), name
        assert f"{name} " in done.stdout
    # What a CPU can do is done, and comes out as it has to on one device.
    assert rows["predictions"]["found"] == "float16 0.0e+00 apart, float32 0.0e+00 apart"
    assert rows["kill-and-resume"]["found"].endswith(", 0 of 4 results differ")
    assert "out of memory" in rows["out-of-memory"]["found"]
    assert {rows[name]["status"] for name in ("amp-float16", "profile", "compiled", "no-waiting-float16")} == {
        "skipped"
    }
