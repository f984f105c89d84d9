"""The tests of the suite that need a GPU."""

import importlib.util
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from acceptance.check import Machine, NotHere, Outcome, judge

REPOSITORY = Path(__file__).parents[2]
MARK = "mark.gpu"


def gpu_tests(machine: Machine) -> Outcome:
    """The tests that are marked gpu pass, every one of them."""
    if importlib.util.find_spec("pytest") is None:
        raise NotHere("pytest is not installed; pip install -r requirements-dev.txt")
    files = [file for file in sorted((REPOSITORY / "tests").rglob("test_*.py")) if MARK in file.read_text()]
    report = machine.folder / "gpu_tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        [*command, *map(str, files)], cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout)
    if not report.exists():
        raise RuntimeError(f"pytest ended with status {done.returncode}: {done.stdout.splitlines()[-1:]}")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    ended = {str(case.get("name")): {part.tag for part in case} for case in cases}
    failed = [name for name, tags in ended.items() if tags & {"failure", "error"}]
    skipped = [name for name, tags in ended.items() if "skipped" in tags]
    found = judge(
        bool(cases) and not failed and (machine.is_dry or not skipped),
        f"{len(cases)} tests, {len(failed)} failed, {len(skipped)} skipped",
        ", ".join(failed + skipped) if failed or (skipped and not machine.is_dry) else "all pass",
    )
    return machine.of_gpu_alone(found, "they skip themselves")
