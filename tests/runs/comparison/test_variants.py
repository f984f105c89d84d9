"""Variants: as configs and as small changes, and what cannot be compared."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from catheters.config.loading import config_text, load_settings
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.comparison.variants import (
    choose_common_folds,
    differing_settings,
    place_runs,
    read_common_data,
    read_variants,
)

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of variants and returns its name."""

    def write_file(text: str) -> str:
        file = tmp_path / "variants.py"
        file.write_text(text)
        return str(file)

    return write_file


def write_configs(folder: Path, **settings: Settings) -> list[str]:
    files = []
    for name, of_file in settings.items():
        file = folder / f"{name}.py"
        file.write_text(config_text(of_file))
        files.append(str(file))
    return files


def test_a_config_says_what_it_was_made_of(settings: Settings, tmp_path: Path) -> None:
    odd = dataclasses.replace(
        settings,
        label_values={"": "unknown", "-1.0": 1},
        pos_weight={"ETT - Normal": 2.0},
        stages=({"image_size": 32}, {"image_size": 64, "batch_size": 4}),
    )
    (file,) = write_configs(tmp_path, odd=odd)
    assert load_settings(file) == odd


def test_small_changes_to_a_preset(write: Write) -> None:
    file = write('base = "sample"\nvariants = {"no EMA!": {"epochs": 3}, "ema": {"ema_decay": 0.9}}\n')
    base, other, ema = read_variants([file], ["image_size=64"])
    assert (base.name, other.name, ema.name) == ("sample", "no EMA!", "ema")
    assert {variant.settings.image_size for variant in (base, other, ema)} == {64}
    assert (other.settings.epochs, ema.settings.ema_decay) == (3, 0.9)
    assert other.run_name(2) == "no_EMA_seed2"
    placed = place_runs([base, other, ema], "named")
    assert {variant.settings.fold_seed for variant in placed} == {0}
    assert str(placed[1].settings.run_folder) == "saved_models/named/no_EMA"
    assert differing_settings(placed) == ["ema_decay", "epochs"] or differing_settings(placed) == [
        "epochs",
        "ema_decay",
    ]


def test_the_base_may_be_a_config_beside_the_file(write: Write, settings: Settings, tmp_path: Path) -> None:
    write_configs(tmp_path, mine=settings)
    base, _ = read_variants([write('base = "mine.py"\nvariants = {"a": {"init_lr": 0.1}}\n')], [])
    assert base.name == "mine"
    assert base.settings.image_size == settings.image_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('base = "sample"\nvariant = {"a": {}}\n', "has 'variant', but no `variants`; write base"),
        ('variants = {"a": {}}\n', "has no `base`"),
        ('base = "sampel"\nvariants = {"a": {}}\n', "sampel: no such config file"),
        ('base = 3\nvariants = {"a": {}}\n', "base is 3; a preset's name"),
        ('base = "sample"\nvariants = {}\n', "variants is {}; a dict is expected"),
        ('base = "sample"\nvariants = {"a": 1}\n', "variants['a'] is 1; a dict of settings"),
        ('base = "sample"\nvariants = {"a": {"ema_deacy": 0.9}}\n', "variants['a']: 'ema_deacy' is not a setting; did"),
        ('base = "sample"\nvariants = {"a": {"ema_decay": 7}}\n', "variants['a']: ema_decay: 7 came"),
        ('base = "sample"\nvariants = {"a": {"seed": 7}}\n', "seed is set by the comparison: --seeds"),
        ('base = "sample"\nvariants = {"a": {"epochs": 7}, "A": {"epochs": 8}}\n', "would lie in one folder: rename"),
        ("base = \n", "variants.py:1: invalid syntax"),
        ("import nothing_of_this_name\n", "variants.py:1: ModuleNotFoundError"),
        ("from catheters import Settings\nsettings = Settings()\n", "is one config, which has nothing to be compared"),
        ("from catheters import Settings\nbase = Settings(epoch=1)\n", "variants.py:2: 'epoch' is not a setting"),
    ],
)
def test_mistakes_in_a_file_of_variants(write: Write, text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        read_variants([write(text)], [])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_on_the_command_line(settings: Settings, tmp_path: Path) -> None:
    files = write_configs(tmp_path, a=settings, b=dataclasses.replace(settings, init_lr=0.1))
    for sources, overrides, expected in (
        (["sample"], [], "one variant alone has nothing to be compared with"),
        (["absent.py", files[0]], [], "absent.py: no such config file"),
        (files, ["seed=1"], "seed is set by the comparison"),
        (files, ["epoch=1"], "'epoch' is not a setting; did you mean 'epochs'?"),
    ):
        with pytest.raises(UserError, match=expected.replace("?", r"\?")):
            read_variants(sources, overrides)
    for change, expected in (
        ({"saved_models_folder": "elsewhere"}, "b: saved_models_folder is 'elsewhere', that of a is"),
        ({"all_data": True}, "b.py: all_data=True leaves no out-of-fold predictions"),
        ({"seed": 0}, "b.py: has the same settings as .*a.py"),
    ):
        others = write_configs(tmp_path, a=settings, b=dataclasses.replace(settings, **change))
        with pytest.raises(UserError, match=expected):
            place_runs(read_variants(others, []), "named")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_folds": 3}, "b: num_folds is 3, that of a is 2; a comparison needs the same folds"),
        ({"fold_seed": 3}, "b: fold_seed is 3, that of a is 0; a comparison needs the same folds"),
        ({"seed": 3}, "b: fold_seed is 3, that of a is 0; a comparison needs the same folds"),
        ({"fold_column": "fold"}, "b: fold_column is 'fold', that of a is None; a comparison needs the same folds"),
        ({"label_columns": ("ETT - Normal",)}, "b: label_columns is .* it gives other labels, and only the same"),
        ({"keep_rows": {"ETT - Normal": "1"}}, "b: keep_rows is .* it gives other images, and only"),
        (
            {"derived_labels": {"ETT - Normal": ("NGT - Normal", "1")}},
            "b: derived_labels .* other true labels",
        ),
        ({"patient_column": "StudyInstanceUID"}, "b: patient_column is .* it gives other patients"),
        ({"cache_name": "absent"}, "no such image cache"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_differs_is_refused(cached: Settings, tmp_path: Path, change: dict[str, object], expected: str) -> None:
    other = dataclasses.replace(cached, init_lr=0.1, **change)  # type: ignore[arg-type]
    variants = read_variants(write_configs(tmp_path, a=cached, b=other), [])
    with pytest.raises(UserError, match=expected) as error:
        read_common_data(place_runs(variants, "named"))
    assert "\n" not in str(error.value)


def test_folds(cached: Settings, tmp_path: Path) -> None:
    other = dataclasses.replace(cached, init_lr=0.1, folds=(1,))
    variants = read_variants(write_configs(tmp_path, a=cached, b=other), [])
    with pytest.raises(UserError, match=r"b: folds is \(1,\), that of a is None; name them with --folds"):
        choose_common_folds(variants, None)
    with pytest.raises(UserError, match=r"--folds 2: there are the folds 0 to 1"):
        choose_common_folds(variants, [0, 2])
    assert choose_common_folds(variants, [1, 0]) == (1, 0)
    data = read_common_data(place_runs(variants, "named"))
    assert len(data.table) == 40
    assert set(data.folds.tolist()) == {0, 1}
