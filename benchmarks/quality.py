"""How well the presets learn beside the published recipes: python benchmarks/quality.py.

Three comparisons, each by compare.py: the recipe of `published_single` with that of `single`, `published_multi` with
`multi`, and `single` with itself less one group of choices. Each on the synthetic sample, and on real chest X-rays with
drawn catheters (semi-synthetic).

  python benchmarks/quality.py                                          all six, three seeds each
  python benchmarks/quality.py --only sample_single --epochs 6          a first look
  python benchmarks/quality.py num_workers=0 channels_last=False        settings of all runs, as for compare.py

A recipe is all that a preset says of training: transforms, loss and its weights, heads, lines, optimizer, learning
rates, schedule. Network, image size, batch size and grey values are those of the sample, and the weights at the start
are random. All train for as many epochs, and of each run the epoch that is best on its fold counts, as always. A
schedule fills the epochs: a single cosine is as long as they leave it, restarts grow in proportion. 21 epochs are
those that `published_single` and `single` have.

It says which recipe learns more in a small network from random weights on such images, and nothing about labels that
readers gave. The same command again resumes what was stopped. No measure of speed, so `make bench` leaves it out.
"""

import argparse
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catheters.commands.command_line import run_command
from catheters.commands.compare_options import main as compare
from catheters.commands.synthetic import main as synthetic
from catheters.config.loading import config_text
from catheters.config.presets import PRESETS, SAMPLE, SAMPLE_LINES, SINGLE
from catheters.config.published import PUBLISHED_SINGLE
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.evaluation.variants.files import JSON_FILE
from catheters.evaluation.variants.seeds import MACRO
from catheters.io.files import read_json, write_json, write_text
from catheters.runs.preproc import preproc
from catheters.runs.provenance import git_commit
from catheters.runtime.console import say

DATA = {"sample": "synthetic", "semi": "semi-synthetic"}
OF_OPTIMIZER = ("optimizer", "weight_decay", "warmup_epochs", "schedule_step")
PARTS = {
    "labels_alone": ("lines",),
    "published_transforms": ("train_transforms",),
    "published_optimizer": OF_OPTIMIZER,
}
"""Recipe -> what it has of `published_single`, and the rest of `single`."""
RECIPES = {
    **{preset: PRESETS[preset] for preset in ("published_single", "single", "published_multi", "multi")},
    **{
        part: dataclasses.replace(SINGLE, **{name: getattr(PUBLISHED_SINGLE, name) for name in names})
        for part, names in PARTS.items()
    },
}
COMPARED = {
    "single": ("published_single", "single"),
    "multi": ("published_multi", "multi"),
    "parts": ("single", *PARTS),
}
"""Recipes that are compared, the first one with the others."""
COMPARISONS = {f"{data}_{what}": (data, what) for what in COMPARED for data in DATA}
"""Name of a comparison -> its data, and what is compared."""
OF_SAMPLE = (
    "image_size",
    "num_folds",
    "batch_size",
    "lr_batch_size",
    "valid_batch_size",
    "grey_mean",
    "grey_std",
    "backbone_model",
    "pretrained",
    "early_stop",
    "folds",
    "seed",
)
"""Settings that are the sample's in every recipe."""
XRAYS = Path("../shared/data/xrays")
"""Where `configs/projection.py` looks for them too."""
NUM_IMAGES = {"sample": 600, "semi": 624}
"""The second: 12 on each of 52 X-rays."""


def transferred(recipe: Settings, epochs: int, **place: Any) -> Settings:
    """A recipe on the sample's network, from random weights.

    Args:
        recipe: a preset for RANZCR CLiP.
        epochs: how long it trains.
        place: settings of data and folders, and the image size.

    Raises:
        UserError: the warm-up leaves no epoch.
    """
    if recipe.schedule == "cosine_restarts":
        restart_epochs = round(recipe.restart_epochs * epochs / recipe.num_epochs)
        length: dict[str, int | None] = {"epochs": epochs, "restart_epochs": restart_epochs}
    elif epochs <= recipe.warmup_epochs:
        raise UserError(f"--epochs {epochs}: a recipe has {recipe.warmup_epochs} of warm-up; take more")
    else:
        length = {"epochs": None, "cosine_epochs": epochs - recipe.warmup_epochs}
    of_sample = {name: getattr(SAMPLE, name) for name in OF_SAMPLE}
    if recipe.lines is not None:
        of_sample["line_stride"] = SAMPLE_LINES.line_stride
    return dataclasses.replace(recipe, **{**of_sample, **length, **place})


def recipes_of(name: str, folder: Path, epochs: int, image_size: int) -> dict[str, Settings]:
    """The recipes of a comparison, in their order, in a folder of images, caches and runs."""
    data, what = COMPARISONS[name]
    return {
        recipe: transferred(
            RECIPES[recipe],
            epochs,
            dataset_folder=str(folder / data),
            cache_folder=str(folder / "cache"),
            cache_name=data,
            saved_models_folder=str(folder),
            image_size=image_size,
        )
        for recipe in COMPARED[what]
    }


def run_folder_of(name: str) -> str:
    """Name of the folder of a comparison's runs: `single` is trained once, for its parts too."""
    data, what = COMPARISONS[name]
    return f"{data}_{'single' if what == 'parts' else what}"


def make_data(data: str, options: argparse.Namespace) -> None:
    """Write the images, unless they are there.

    Raises:
        UserError: there are no X-rays to draw on.
    """
    arguments = [str(options.folder / data), "--num-images", str(options.num_images or NUM_IMAGES[data])]
    if data == "semi":
        if not options.xrays.is_dir():
            raise UserError(
                f"--xrays {options.xrays}: no such folder; name one of frontal chest X-rays, or take --only "
                f"{' '.join(name for name, (of, _) in COMPARISONS.items() if of != 'semi')}"
            )
        arguments += ["--on", str(options.xrays)]
        patients = options.patients or options.xrays / "index.csv"
        arguments += ["--patients", str(patients)] if options.patients or patients.is_file() else []
    synthetic(arguments)


def outcome(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What a comparison came to, of its `comparison.json`."""
    content = read_json(folder / JSON_FILE)
    recipes = {}
    for variant in content["variants"]:
        scores = [score for score in variant["macro_auc_of_seeds"].values() if score is not None]
        found = variant["differences"].get(MACRO, {})
        recipes[variant["name"]] = {
            "macro_auc": sum(scores) / len(scores) if scores else None,
            "macro_auc_of_seeds": variant["macro_auc_of_seeds"],
            **{key: found.get(key) for key in ("difference", "low", "high", "p_value")},
            "seconds": None if variant["cost"] is None else variant["cost"]["seconds"],
        }
    return {
        "data": DATA[COMPARISONS[name][0]],
        "epochs": options.epochs,
        "image_size": options.size,
        "settings": options.overrides,
        **{key: content[key] for key in ("seeds", "folds", "num_images", "num_patients", "verdict")},
        "date": datetime.date.today().isoformat(),
        "git_commit": git_commit(),
        "recipes": recipes,
    }


def markdown(outcomes: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of all comparisons."""
    lines = [
        "| images | recipe | seeds | macro ROC AUC | difference from the row without one (95% interval) | a fold |",
        "|---|---|---|---|---|---|",
    ]
    for outcome_of in outcomes.values():
        for recipe, numbers in outcome_of["recipes"].items():
            seeds = len(numbers["macro_auc_of_seeds"])
            auc = "-" if numbers["macro_auc"] is None else f"{numbers['macro_auc']:.3f}"
            gap = ""
            if numbers["difference"] is not None:
                gap = f"{numbers['difference']:+.3f}"
                if numbers["low"] is not None:
                    gap += f" ({numbers['low']:+.3f} to {numbers['high']:+.3f})"
            seconds = "-" if numbers["seconds"] is None else f"{numbers['seconds']:.0f} s"
            lines.append(f"| {outcome_of['data']} | `{recipe}` | {seeds} | {auc} | {gap} | {seconds} |")
    return "\n".join(lines)


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="settings of all runs, but their length")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(COMPARISONS),
        default=list(COMPARISONS),
        metavar="NAME",
        help=f"these comparisons alone, of {', '.join(COMPARISONS)} (default: all)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="(default: 0 1 2)")
    parser.add_argument("--folds", nargs="+", type=int, default=[0], metavar="N", help="of three (default: 0)")
    parser.add_argument("--epochs", type=int, default=21, metavar="N", help="of every recipe (default: %(default)s)")
    parser.add_argument("--size", type=int, default=SAMPLE.image_size, metavar="PX", help="(default: %(default)s)")
    parser.add_argument(
        "--xrays",
        type=Path,
        default=XRAYS,
        metavar="FOLDER",
        help="frontal chest X-rays to draw on (default: %(default)s)",
    )
    parser.add_argument(
        "--patients", type=Path, metavar="CSV", help="with the columns file and patient_id (default: their index.csv)"
    )
    parser.add_argument(
        "--num-images", type=int, metavar="N", help="of each data set (default: 600 synthetic, 624 semi-synthetic)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("saved_models/quality"),
        metavar="FOLDER",
        help="of images, caches and runs, which resumes what it holds (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the numbers there, beside those of other comparisons"
    )
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Train what is not trained yet, and print the table after each comparison."""
    options = parse_options(arguments)
    outcomes: dict[str, Any] = {}
    if options.json is not None and options.json.is_file():
        outcomes = read_json(options.json)
    status = 0
    for name in options.only:
        make_data(COMPARISONS[name][0], options)
        recipes = recipes_of(name, options.folder, options.epochs, options.size)
        configs = [options.folder / f"{name}_recipes" / f"{recipe}.py" for recipe in recipes]
        for config, settings in zip(configs, recipes.values(), strict=True):
            config.parent.mkdir(parents=True, exist_ok=True)
            write_text(config, config_text(settings))
            preproc(settings)
        seeds, folds = (map(str, numbers) for numbers in (options.seeds, options.folds))
        runs = run_folder_of(name)
        command = [*map(str, configs), *options.overrides, "--name", runs, "--seeds", *seeds, "--folds", *folds]
        status = max(status, compare(command))
        outcomes[name] = outcome(name, options.folder / runs, options)
        outcomes = {key: outcomes[key] for key in COMPARISONS if key in outcomes}
        if options.json is not None:
            write_json(options.json, outcomes)
        say(f"\n{markdown(outcomes)}")
    return status


if __name__ == "__main__":
    run_command(main)
