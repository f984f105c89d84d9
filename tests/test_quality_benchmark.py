"""benchmarks/quality.py: that it compares the presets' recipes, alike in all else, and says what came."""

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from catheters.config.presets import PRESETS, SAMPLE
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.build import build_schedule
from tests.conftest import load_benchmark

PLACE = {"dataset_folder", "cache_folder", "cache_name", "saved_models_folder", "image_size"}
LENGTH = {"epochs", "cosine_epochs", "restart_epochs"}


@pytest.fixture
def quality() -> ModuleType:
    """The script, which is no part of a package."""
    return load_benchmark("quality")


def learning_rates(settings: Settings, num_epochs: int, steps_per_epoch: int = 4) -> list[float]:
    """Of each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.init_lr)
    schedule = build_schedule(settings, optimizer, steps_per_epoch)
    rates = []
    for _ in range(num_epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("epochs", [9, 21])
def test_recipes_are_those_of_the_presets(quality: ModuleType, tmp_path: Path, epochs: int) -> None:
    """What is not the sample's, the place or the length is the preset's; and all train equally long."""
    single, published = PRESETS["single"], PRESETS["published_single"]
    parts = {
        "labels_alone": dataclasses.replace(single, lines=None),
        "published_transforms": dataclasses.replace(single, train_transforms=published.train_transforms),
        "published_optimizer": dataclasses.replace(
            single, optimizer="Adam", weight_decay=0.0, warmup_epochs=1, schedule_step="epoch"
        ),
    }
    expected = {"single": ["published_single", "single"], "multi": ["published_multi", "multi"]}
    expected["parts"] = ["single", *parts]
    assert list(quality.COMPARISONS) == [f"{data}_{what}" for what in expected for data in ("sample", "semi")]
    for name, (data, what) in quality.COMPARISONS.items():
        recipes = quality.recipes_of(name, tmp_path, epochs, 96)
        assert list(recipes) == expected[what]
        for preset, settings in recipes.items():
            recipe = parts[preset] if preset in parts else PRESETS[preset]
            for field in dataclasses.fields(Settings):
                value = getattr(settings, field.name)
                if field.name in quality.OF_SAMPLE and field.name not in PLACE:
                    assert value == getattr(SAMPLE, field.name), field.name
                elif field.name == "line_stride":
                    assert value == (4 if recipe.lines is None else 2)
                elif field.name not in PLACE | LENGTH:
                    assert value == getattr(recipe, field.name), field.name
            assert (settings.num_epochs, settings.image_size, settings.early_stop) == (epochs, 96, 0)
            assert (settings.dataset_folder, settings.pretrained) == (str(tmp_path / data), False)


def test_schedules_fill_the_epochs(quality: ModuleType, tmp_path: Path) -> None:
    """First, highest and last learning rates as the presets have them, at 21 epochs as at 9."""
    for epochs in (9, 21):
        of = {**quality.recipes_of("sample_single", tmp_path, epochs, 96)}
        of |= quality.recipes_of("sample_multi", tmp_path, epochs, 96)
        rates = {preset: learning_rates(settings, epochs) for preset, settings in of.items()}
        for preset, first, peak in (
            ("published_single", 3e-5, 3e-4),
            ("single", 3e-5, 3e-4),
            ("published_multi", 6.5e-5, 6.5e-5),
            ("multi", 3e-5, 3e-4),
        ):
            assert rates[preset][0] == pytest.approx(first)
            assert max(rates[preset]) == pytest.approx(peak)
            assert rates[preset][-1] < peak / 10
    assert of["published_single"].cosine_epochs == PRESETS["published_single"].cosine_epochs
    assert of["single"].cosine_epochs == PRESETS["single"].cosine_epochs
    with pytest.raises(UserError, match=r"^--epochs 3: a recipe has 3 of warm-up; take more$"):
        quality.recipes_of("semi_single", tmp_path, 3, 96)


def test_xrays_are_asked_for(quality: ModuleType, tmp_path: Path) -> None:
    options = quality.parse_options(["--folder", str(tmp_path), "--xrays", str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"none: no such folder; .* or take --only sample_single sample_multi .*$"):
        quality.make_data("semi", options)


def test_the_table(quality: ModuleType) -> None:
    """By hand; of the last one the interval is not known."""
    numbers = {"macro_auc_of_seeds": {"0": 0.5, "1": 0.6}, "seconds": 61.0}
    first = {**numbers, "macro_auc": 0.55, "difference": None, "low": None, "high": None}
    second = {**numbers, "macro_auc": 0.75, "difference": 0.2, "low": 0.1, "high": 0.3004}
    recipes = {"published_single": first, "single": second}
    third = {**second, "low": None, "high": None}
    outcomes = {
        "sample_single": {"data": "synthetic", "recipes": recipes},
        "semi_multi": {"data": "semi-synthetic", "recipes": {"multi": third}},
    }
    assert quality.markdown(outcomes).splitlines()[2:] == [
        "| synthetic | `published_single` | 2 | 0.550 |  | 61 s |",
        "| synthetic | `single` | 2 | 0.750 | +0.200 (+0.100 to +0.300) | 61 s |",
        "| semi-synthetic | `multi` | 2 | 0.750 | +0.200 | 61 s |",
    ]


@pytest.mark.slow
def test_it_trains_and_resumes(
    quality: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a size that says nothing; the second call trains nothing, and leaves other comparisons in the file."""
    arguments = ["--only", "sample_single", "--num-images", "36", "--size", "32", "--epochs", "4", "--seeds", "0"]
    arguments += ["--folder", str(tmp_path / "runs"), "--json", str(tmp_path / "quality.json")]
    arguments += ["num_workers=0", "channels_last=False", "device=cpu"]
    (tmp_path / "quality.json").write_text(json.dumps({"semi_multi": {"data": "semi-synthetic", "recipes": {}}}))
    assert quality.main(arguments) == 0
    table = capsys.readouterr().out.splitlines()[-4:]
    outcomes = json.loads((tmp_path / "quality.json").read_text())
    assert list(outcomes) == ["sample_single", "semi_multi"]
    found = outcomes["sample_single"]
    assert (found["epochs"], found["image_size"], found["seeds"], found["folds"]) == (4, 32, [0], [0])
    content = json.loads((tmp_path / "runs" / "sample_single" / "comparison.json").read_text())
    for variant in content["variants"]:
        recipe = found["recipes"][variant["name"]]
        assert recipe["macro_auc_of_seeds"] == variant["macro_auc_of_seeds"]
        assert variant["cost"]["epochs"] == 4
        assert f"| `{variant['name']}` | 1 | {recipe['macro_auc']:.3f} |" in "\n".join(table)
    assert found["recipes"]["single"]["difference"] == pytest.approx(
        found["recipes"]["single"]["macro_auc"] - found["recipes"]["published_single"]["macro_auc"]
    )
    assert quality.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == table
