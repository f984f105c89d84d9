"""`extra_tables` in the settings: what is refused at once."""

import dataclasses
from typing import Any

import pytest

from catheters.config.settings import Settings
from catheters.errors import SettingsError


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"cache_name": "other"}], r"extra_tables\[0\]: needs dataset_folder, as in"),
        ([{"dataset_folder": "x"}], r"extra_tables\[0\]: needs cache_name, as in"),
        ([{"cache_name": "tiny", "dataset_folder": "x"}], "cache_name='tiny' is another table's"),
        (2 * [{"cache_name": "a", "dataset_folder": "x"}], r"extra_tables\[1\]: cache_name='a' is another table's"),
        ([{"cache_name": "a", "dataset_folder": "x", "lable_table": "y"}], "did you mean 'label_table'"),
        ([{"cache_name": "a", "dataset_folder": "x", "image_size": 64}], "'image_size' is not a setting of a further"),
        ([{"cache_name": "a", "dataset_folder": "x", "weight": -1}], "weight: -1 came, a number above 0 and at most"),
        ([{"cache_name": "a", "dataset_folder": "x", "weight": 10**400}], "weight: 1000"),
        (
            [{"cache_name": "a", "dataset_folder": "x", "shares_ids": 0}],
            "shares_ids: 0 came, True or False is",
        ),
        ([{"cache_name": "a", "dataset_folder": "x", "label_values": {"?": 7}}], r"extra_tables\[0\]: label_values: 7"),
        ([{"cache_name": "a", "dataset_folder": "x", "path_pattern": "{uid"}], r"extra_tables\[0\]: path_pattern"),
    ],
)
def test_settings_that_are_refused(settings: Settings, tables: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        dataclasses.replace(settings, extra_tables=tables)


def test_no_maps_for_extra_images(settings: Settings) -> None:
    tables = ({"cache_name": "a", "dataset_folder": "x"},)
    with pytest.raises(SettingsError, match="extra_tables: their images have no out-of-fold maps for lines='input'"):
        dataclasses.replace(settings, lines="input", first_stage="first", extra_tables=tables)
