"""The settings in groups: every setting once, and each script's help shows those that it uses."""

import dataclasses
import itertools
import subprocess
import sys

import pytest

from catheters.config.groups import CACHE_FIRST, CACHE_GROUPS, GROUPS, TRAIN_FIRST, describe_settings, type_of
from catheters.config.settings import Settings
from tests.conftest import REPOSITORY

NAMES = [field.name for field in dataclasses.fields(Settings)]


def test_every_setting_is_in_one_group() -> None:
    assert sorted(itertools.chain(*GROUPS.values())) == sorted(NAMES)


def test_what_comes_first_is_not_said_twice() -> None:
    text = describe_settings(first=TRAIN_FIRST)
    for name in NAMES:
        assert text.count(f"\n  {name} = ") == 1
    assert text.index("  batch_size = ") < text.index("Label table:") < text.index("  label_table = ")
    listed = (line.split()[0] for line in text.splitlines() if line.startswith("  ") and " = " in line)
    assert next(listed) == TRAIN_FIRST[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image_size", "int or (int, int)"),
        ("resize", "'stretch' or 'pad'"),
        ("fold_column", "str or None"),
        ("heads", "{str: list of str}"),
        ("seeds", "list of int or None"),
        ("train_transforms", "list of (str, {str: any})"),
        ("label_values", "{str: 0 or 1 or 'unknown'}"),
        ("device", "str"),
    ],
)
def test_types_in_words(name: str, words: str) -> None:
    assert type_of(name) == words


@pytest.mark.parametrize(
    ("script", "first", "others", "absent"),
    [
        ("preproc_npy.py", CACHE_FIRST, ["resampling", "fold_column"], ["optimizer", "batch_size", "run_name"]),
        ("train.py", TRAIN_FIRST, ["optimizer", "resampling", "run_name"], []),
    ],
)
def test_help_shows_what_the_script_uses(script: str, first: list[str], others: list[str], absent: list[str]) -> None:
    command = [sys.executable, str(REPOSITORY / script), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ") and " = " in line[:40]]
    assert listed[: len(first)] == list(first)
    assert set(others) <= set(listed)
    assert not set(absent) & set(listed)
    assert all(set(GROUPS[group]) <= set(listed) for group in CACHE_GROUPS)
