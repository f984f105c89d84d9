"""The space of a search: what may be written, and that a mistake is said before the first trial."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from catheters.config.loading import config_text
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.comparison.variants import place_runs
from catheters.runs.search.space import Search, check_trials, read_search

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of a search."""

    def write_file(text: str) -> Path:
        file = tmp_path / "space.py"
        file.write_text(text)
        return file

    return write_file


def distributions(search: Search) -> dict[str, Any]:
    """What Optuna is asked for."""
    trial = optuna.create_study().ask()
    for name, dimension in search.space.items():
        dimension.suggest(trial, name)
    return trial.distributions


def test_ranges_follow_the_type_of_the_setting(write: Write) -> None:
    """Whole numbers for those that take them, fractions for others, however the ends are written."""
    search = read_search(
        write(
            'base = "sample"\n'
            'space = {"init_lr": ("log", 1e-5, 1e-3), "drop_rate": (0, 0.5), "weight_decay": (0, 1), '
            '"batch_size": ("log", 4, 64), "clip_grad_norm": (1, 5), "optimizer": ["AdamW", "SGD"], '
            '"train_transforms": [[], [["HorizontalFlip", {"p": 0.5}]]]}\n'
        ),
        ["epochs=2"],
    )
    assert search.base.name == "sample"
    assert search.base.settings.epochs == 2
    assert distributions(search) == {
        "init_lr": FloatDistribution(1e-5, 1e-3, log=True),
        "drop_rate": FloatDistribution(0, 0.5),
        "weight_decay": FloatDistribution(0, 1),
        "batch_size": IntDistribution(4, 64, log=True),
        "clip_grad_norm": FloatDistribution(1, 5),
        "optimizer": CategoricalDistribution(("'AdamW'", "'SGD'")),
        "train_transforms": CategoricalDistribution(("()", "(('HorizontalFlip', {'p': 0.5}),)")),
    }
    flipped = FixedTrial({"train_transforms": "(('HorizontalFlip', {'p': 0.5}),)"})
    value = search.space["train_transforms"].suggest(flipped, "train_transforms")  # type: ignore[arg-type]
    assert value == (("HorizontalFlip", {"p": 0.5}),)  # as the settings have it, a tuple


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ('{"init_lr": ("log", 1e-5, 1e-3), "batch_size": (8, 32)}', {"init_lr": 3e-4, "batch_size": 16}),
        ('{"optimizer": ["SGD", "AdamW"], "ema_decay": [None, 0.99]}', {"optimizer": "'AdamW'", "ema_decay": "None"}),
        ('{"init_lr": ("log", 1e-3, 1e-2), "batch_size": (8, 32)}', {}),  # 3e-4 is outside
        ('{"ema_decay": (0.9, 0.99)}', {}),  # None is no number
    ],
)
def test_the_base_itself_comes_first_where_the_space_has_it(
    write: Write, space: str, expected: dict[str, object]
) -> None:
    assert read_search(write(f'base = "sample"\nspace = {space}\n'), []).first_parameters() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('base = "sample"\n', 'has no `space`; write base = "sample" and space = {"init_lr"'),
        ('base = "sample"\nspaces = {}\n', "has 'spaces', but no `space`"),
        ("space = {}\n", "has no `base`"),
        ('base = "sample"\nspace = {}\n', "space is {}; a dict is expected"),
        ('base = "sample"\nspace = ["init_lr"]\n', "space is ['init_lr']; a dict is expected"),
        ('base = "sampel"\nspace = {"init_lr": (0.1, 0.2)}\n', "sampel: no such config file"),
        ('base = 3\nspace = {"init_lr": (0.1, 0.2)}\n', "base is 3; a preset's name"),
        ("base = \n", "space.py:1: invalid syntax"),
        ("import nothing_of_this_name\n", "space.py:1: ModuleNotFoundError"),
    ],
)
def test_mistakes_in_the_file(write: Write, text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        read_search(write(text), [])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ('{"init_rl": (0.1, 0.2)}', "space['init_rl']: 'init_rl' is not a setting; did you mean 'init_lr'?"),
        ('{"init_lr": 0.1}', "space['init_lr'] is 0.1; a range (low, high), a log range"),
        ('{"init_lr": (0.1,)}', "space['init_lr'] is (0.1,); a range (low, high)"),
        ('{"init_lr": (0.1, 0.2, 0.3)}', "space['init_lr'] is (0.1, 0.2, 0.3); a range (low, high)"),
        ('{"init_lr": ("lin", 0.1, 0.2)}', "space['init_lr'] is ('lin', 0.1, 0.2); a range (low, high)"),
        ('{"init_lr": ("0.1", "0.2")}', "space['init_lr'] is ('0.1', '0.2'); a range (low, high)"),
        ('{"init_lr": (0.2, 0.1)}', "space['init_lr'] is (0.2, 0.1); the lower end comes first"),
        ('{"init_lr": (0.1, float("nan"))}', "space['init_lr']: both ends have to be finite numbers, below 1e308"),
        ('{"init_lr": ("log", 1e-5, 10**400)}', "space['init_lr']: both ends have to be finite numbers, below 1e308"),
        ('{"batch_size": (1, 10**5000)}', "space['batch_size']: both ends have to be finite numbers, below 1e308"),
        ('{"weight_decay": ("log", 0.0, 0.1)}', "space['weight_decay'] is ('log', 0.0, 0.1); a log range begins above"),
        ('{"drop_rate": (0.0, 1.5)}', "space['drop_rate']: drop_rate: 1.5 came"),
        ('{"batch_size": (8.0, 32.0)}', "batch_size takes whole numbers, so both ends have to be"),
        ('{"batch_size": (False, True)}', "space['batch_size'] is (False, True); a range"),
        ('{"use_amp": (0, 1)}', "use_amp takes bool, which has no range; list its choices"),
        ('{"optimizer": ("AdamW", "SGD")}', "space['optimizer'] is ('AdamW', 'SGD'); a range"),
        ('{"optimizer": ["AdamW"]}', "space['optimizer'] has 1 choice; two or more are expected"),
        ('{"optimizer": ["AdamW", "AdamW"]}', "space['optimizer']: 'AdamW' is there twice"),
        ('{"schedule": ["cosine", "cosinus"]}', "space['schedule']: schedule: 'cosinus' came"),
        ('{"min_lr": (1e-7, 1.0)}', "space['min_lr']: min_lr=1.0 is above the peak learning rate"),
        ('{"image_size": (128, 256)}', "space['image_size']: every value needs an image cache; list those"),
        ('{"seed": [0, 1]}', "seed may not vary: --seeds says which it is"),
        ('{"folds": [[0], [1]]}', "folds may not vary: --folds says which are trained"),
        ('{"num_folds": (2, 5)}', "num_folds may not vary: all trials are scored on the same images, labels and folds"),
        ('{"label_columns": [["a"], ["b"]]}', "label_columns may not vary: all trials are scored on the same"),
        ('{"dataset_folder": ["a", "b"]}', "dataset_folder may not vary: all trials are scored on the same"),
        ('{"num_workers": (0, 4)}', "num_workers may not vary: it says where and how fast a trial runs"),
        ('{"run_name": ["a", "b"]}', "run_name may not vary: it says where and how fast"),
        ('{"stages": [[], [{}]]}', "stages may not vary: trials are scored, and pruned, by the validation of one"),
    ],
)
def test_mistakes_in_the_space(write: Write, space: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        read_search(write(f'base = "sample"\nspace = {space}\n'), [])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_mistakes_of_base_and_command_line(write: Write) -> None:
    file = write('base = "sample"\nspace = {"init_lr": (1e-4, 1e-3)}\n')
    for overrides, expected in (
        (["init_lr=1e-4"], r"space\['init_lr'\]: varies, but the command line sets init_lr; leave it out of one"),
        (["seed=1"], "command line: seed is set by the search: --seeds says which there are"),
        (["epoch=1"], r"'epoch' is not a setting; did you mean 'epochs'\?"),
    ):
        with pytest.raises(UserError, match=expected):
            read_search(file, overrides)
    with pytest.raises(UserError, match=r"absent\.py: no such file"):
        read_search(file.with_name("absent.py"), [])
    stages = "base = Settings(stages=({'epochs': 1}, {'epochs': 2}))\nspace = {'init_lr': (1e-4, 1e-3)}\n"
    with pytest.raises(UserError, match=r"base has stages, and a search prunes by the epochs of one training"):
        read_search(write(f"from catheters import Settings\n{stages}"), [])


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            '{"backbone_model": ["test_resnet", "test_resnte"]}',
            "'test_resnte': backbone_model: 'test_resnte' is not a ti",
        ),
        ('{"optimizer": ["AdamW", "Adamm"]}', r"space\['optimizer'\]: 'Adamm': optimizer"),
        ('{"train_transforms": [[], [["Flipp", {}]]]}', r"space\['train_transforms'\]: \(\('Flipp', {}\),\): .*Flipp"),
        ('{"image_size": [32, 48]}', "no such image cache"),
        ('{"resize": ["stretch", "pad"]}', "was made with resize='stretch', the settings say 'pad'"),
        ('{"pretrained": [False, "localdir:x"]}', "'localdir:x': pretrained=localdir:x: 'localdir:' is not a source"),
    ],
)
def test_what_a_trial_would_fail_of_is_said_before(cached: Settings, write: Write, space: str, expected: str) -> None:
    base = dataclasses.replace(cached, run_name=None)
    file = write(config_text(base).replace("settings = ", "base = ") + f"space = {space}\n")
    search = read_search(file, [])
    (placed,) = place_runs([search.base], "named")
    with pytest.raises(UserError, match=expected) as error:
        check_trials(search, placed.settings)
    assert "\n" not in str(error.value)


def test_a_space_that_can_be_searched_is_not_refused(cached: Settings, write: Write) -> None:
    base = dataclasses.replace(cached, run_name=None)
    space = '{"image_size": [32, [32, 32]], "backbone_model": ["test_resnet", "test_vit"], "init_lr": (1e-4, 1e-3)}'
    search = read_search(write(config_text(base).replace("settings = ", "base = ") + f"space = {space}\n"), [])
    (placed,) = place_runs([search.base], "named")
    check_trials(search, placed.settings)
