"""Every benchmark, one table: python benchmarks/bench.py, or make bench.

Each benchmark is a script of its own, which can be run alone. Their rows go to `benchmarks/results/<host>.json`, of
which the page `docs/performance.md` is made, with its figures.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rows import Row, number, print_rows, read_rows

from catheters.runs.provenance import describe_environment, git_commit
from catheters.runtime.device import open_device

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
QUICK_ARGUMENTS = {
    "preproc": "--num-images 6 --rounds 1 --memory-images 2 4",
    "resizing": "--targets 64 --ways area quick --repeats 1",
    "loading": "--sizes 64 --workers 1 --samples 36 --rounds 1",
    "step": "--backbones test_resnet --image-size 32 --batch-size 2 --steps 3",
    "heads": "--backbones test_resnet --image-size 32 --batch-size 2 --steps 2",
    "lines": "--backbones test_resnet --image-size 32 --batch-size 2 --rounds 2",
    "waiting": "--configs configs/sample.py --epochs 2",
    "end_to_end": "--backbone test_resnet --sizes 32 --batch-sizes 2 --steps 4 --rounds 2 --num-images 4",
    "memory": "--rows 60 120 --rounds 1",
    "evaluation": "--every 20 --rounds 1",
    "prediction": "--backbones test_resnet --image-size 64 --num-images 4 --rounds 1 --memory-images 2 3",
    "export": "--backbones test_resnet --image-size 32 --rounds 2",
}
"""Benchmark -> arguments with which it finishes within seconds, to see that it works."""
FULL_ARGUMENTS = {"resizing": ["--ways", "area", "quick"]}
"""Benchmark -> further arguments: ways of resizing that no setting has were measured once."""
ACCEPTANCE = "accept_"
"""How the names of results of `accept_gpu.py` begin."""
WRITTEN = ("benchmarks/results", "docs", "README.md")
"""What no benchmark measures, and what they write."""
TITLES = {
    "preproc": "Building the cache",
    "resizing": "What resizing leaves of thin lines, and its time",
    "loading": "Loading and augmenting",
    "step": "The training loop beside bare steps",
    "heads": "Attention heads beside one linear head",
    "lines": "Learning lines beside learning labels alone",
    "waiting": "Waiting for data, config by config",
    "end_to_end": "Training from the cache beside batches on the device",
    "memory": "Memory as the data set grows",
    "evaluation": "Evaluation",
    "prediction": "Prediction",
    "export": "Exported models",
}


def main() -> int:
    """Run them all and write what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES), help="these benchmarks alone")
    parser.add_argument("--host", help="name of the results (default: this machine's)")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="(default: benchmarks/results)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="(default: docs/performance.md)")
    parser.add_argument(
        "--quick", action="store_true", help="sizes that take seconds and say nothing, by default into a new folder"
    )
    parser.add_argument("--page-only", action="store_true", help="measure nothing; make the page of earlier results")
    options = parser.parse_args()
    host = options.host or platform.node()
    if options.quick and None in (options.results, options.page):
        folder = Path(tempfile.mkdtemp(prefix="bench_"))
        options.results, options.page = options.results or folder, options.page or folder / "performance.md"
    file = (options.results or HERE / "results") / f"{host}.json"
    page = options.page or REPOSITORY / "docs" / "performance.md"
    if options.page_only and not file.exists():
        parser.error(f"--page-only: {file} is not there")
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in [] if options.page_only else options.only:
        print(f"\n{TITLES[name]}: python benchmarks/{name}.py", flush=True)
        machine = describe_machine()
        rows = run(name, QUICK_ARGUMENTS[name].split() if options.quick else FULL_ARGUMENTS.get(name, []))
        results[name] = {**machine, "rows": [dataclasses.asdict(row) for row in rows]}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    measured = rows_of(results)
    write_page(page, host, results, file.parent)
    print()
    print_rows([row for rows in measured.values() for row in rows])
    print(f"-> {file}, {page}")
    return 0


def run(name: str, arguments: list[str]) -> list[Row]:
    """The rows of one benchmark, whose own output is shown as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(file), *arguments]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        return read_rows(file.read_text())


def describe_machine() -> dict[str, Any]:
    """Date, commit of the program and machine of a measurement."""
    environment = describe_environment(open_device("auto"), 1)
    kept = ("python", "versions", "device", "num_threads", "hardware")
    return {
        "date": datetime.date.today().isoformat(),
        "git_commit": measured_commit(),
        **{key: environment[key] for key in kept},
    }


def measured_commit() -> str | None:
    """The commit, with -dirty where files that are measured have changed: results and pages are written meanwhile."""
    commit = git_commit()
    if commit is None:
        return None
    changed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "diff", "--quiet", "HEAD", "--", ".", *(f":!{path}" for path in WRITTEN)]
    )
    return commit.removesuffix("-dirty") + ("-dirty" if changed.returncode else "")


def rows_of(results: dict[str, Any]) -> dict[str, list[Row]]:
    """Benchmark -> its rows, in the order of `TITLES`."""
    return {name: read_rows(json.dumps(results[name]["rows"])) for name in TITLES if name in results}


def results_of_page(page: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """The host whose benchmarks a page shows, and their results; this machine's where there is no page yet."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = re.search(r"`benchmarks/results/(.+)\.json`", text)
    host = found[1] if found else platform.node()
    file = folder / f"{host}.json"
    return host, json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write_page(page: Path, host: str, results: dict[str, Any], results_folder: Path) -> None:
    """The page, and beside it a folder of its name with one figure per benchmark.

    Args:
        page: the file.
        host: whose benchmarks they are.
        results: of the benchmarks.
        results_folder: where those of `accept_gpu.py` are, of any host.
    """
    rows = rows_of(results)
    acceptances = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(results_folder.glob(f"{ACCEPTANCE}*.json"))
    ]
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for name, measured in rows.items():
        draw(measured, folder / f"{name}.svg")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template("performance.md.jinja")
    missing = [f"{title} (`python benchmarks/{name}.py`)" for name, title in TITLES.items() if name not in rows]
    text = template.render(
        host=host,
        results=results,
        rows=rows,
        missing=missing,
        titles=TITLES,
        number=number,
        folder=folder.name,
        acceptances=acceptances,
    )
    page.write_text(text, encoding="utf-8")


def draw(rows: list[Row], file: Path) -> None:
    """One dot per row: its ratio between the rounds' quartiles, and the aim where there is one."""
    with mpl.rc_context({"svg.hashsalt": "catheters", "font.size": 9}):
        figure = Figure(figsize=(8.5, 0.6 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            colour = "#1f6f54" if row.is_reached else "#b3362c"
            axes.plot(row.quartiles, (place, place), color=colour, linewidth=2, alpha=0.5)
            axes.plot(row.ratio, place, "o", color=colour)
            if row.bound is not None:
                axes.plot(row.bound[1], place, "|", color="black", markersize=12)
        axes.axvline(1.0, color="#999999", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [f"{row.what} / {row.reference}" for row in rows])
        axes.invert_yaxis()
        ratios = [value for row in rows for value in (row.ratio, *row.quartiles)]
        if max(ratios) > 8 * min(ratios):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("ratio (line: quartiles; bar: the aim)")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
