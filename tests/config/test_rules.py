"""The setting `rules`: from a file into the settings, which keep it; and every mistake in a line of its own."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from catheters.config.loading import load_settings, settings_from_json, settings_to_json
from catheters.config.presets import SAMPLE_LINES
from catheters.config.settings import Settings
from catheters.errors import SettingsError
from catheters.measurement_rules import Rule
from tests.conftest import REPOSITORY

NAME = "ETT tip above carina"
WHOLE = [[None, 30, "ETT - Borderline"], [30, None, "ETT - Normal"]]


def with_rules(rules: Any) -> Settings:
    return dataclasses.replace(SAMPLE_LINES, rules=rules)


def test_the_files_that_come_with_the_program() -> None:
    """The preset has what its file has; real tubes have a normal position of 30 to 70 mm."""
    assert with_rules(str(REPOSITORY / "configs/sample_rules.toml")) == SAMPLE_LINES
    bands = with_rules(str(REPOSITORY / "configs/ett_rules.toml")).rules_by_name[NAME].bands
    assert bands[2] == (30.0, 70.0, "ETT - Normal")
    assert (bands[0][0], bands[-1][1]) == (None, None)
    assert load_settings("sample_lines").rules_by_name[NAME].judge  # by name, wherever it is started


def test_settings_keep_what_the_file_held(tmp_path: Path) -> None:
    """When the file is gone, too: what a run and its checkpoints write has the bands."""
    file = tmp_path / "rules.toml"
    file.write_text(
        f'["{NAME}"]\nunit = "mm"\nbands = [[-inf, 30, "ETT - Borderline"], [30.0, inf, " ETT - Normal "]]\n'
    )
    settings = with_rules(str(file))
    text = settings_to_json(settings)
    file.unlink()
    assert settings.rules == {NAME: Rule("mm", ((None, 30.0, "ETT - Borderline"), (30.0, None, "ETT - Normal")))}
    assert settings_from_json(text, "settings.json").rules == settings.rules
    assert dataclasses.replace(settings, image_size=256).rules == settings.rules
    from_python = with_rules(
        {NAME: {"unit": "mm", "bands": [(-math.inf, 30, "ETT - Borderline"), (30, math.inf, "ETT - Normal")]}}
    )
    assert from_python == settings
    assert Settings().rules == {}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"x": {"unit": "mm", "bands": WHOLE}}, f"rules: 'x' is not one of measurements; there are: {NAME}"),
        (
            {NAME: {"unit": "cm", "bands": WHOLE}},
            f"rules: '{NAME}': 'cm' is not a unit; there are: mm, share of height",
        ),
        ({NAME: {"unit": ["mm"], "bands": WHOLE}}, "is not a unit"),
        ({NAME: {"unit": "mm", "bands": []}}, f"rules: '{NAME}': bands=[]; at least one [from, to, label] is expected"),
        ({NAME: {"unit": "mm", "bands": 3}}, "bands=3; at least one [from, to, label] is expected"),
        ({NAME: {"unit": "mm"}}, "bands is missing, as in"),
        ({NAME: {"bands": WHOLE}}, "unit is missing, as in"),
        ({NAME: {"unit": "mm", "band": WHOLE}}, "'band' is not a part of a rule; did you mean 'bands'?"),
        ({NAME: WHOLE}, "is no rule; unit and bands are expected"),
        (7, "rules: 7 came; a TOML file or {measurement: its rule} is expected"),
        ({NAME: {"unit": "mm", "bands": [[None, None]]}}, "the band [None, None] is not [from, to, label], as in"),
        ({NAME: {"unit": "mm", "bands": [[None, math.nan, "ETT - Normal"]]}}, "is not [from, to, label], as in"),
        ({NAME: {"unit": "mm", "bands": [[None, 10**400, "ETT - Normal"]]}}, "is not [from, to, label], as in"),
        ({NAME: {"unit": "mm", "bands": [[-(10**400), None, "ETT - Normal"]]}}, "is not [from, to, label], as in"),
        ({NAME: {"unit": "mm", "bands": [[math.inf, None, "ETT - Normal"]]}}, "is not [from, to, label], as in"),
        ({NAME: {"unit": "mm", "bands": [[None, "30", "ETT - Normal"]]}}, "is not [from, to, label], as in"),
        ({NAME: {"unit": "mm", "bands": [[None, True, "ETT - Normal"]]}}, "is not [from, to, label], as in"),
        ({NAME: {"unit": "mm", "bands": ["abc"]}}, "the band 'abc' is not [from, to, label], as in"),
        (
            {NAME: {"unit": "mm", "bands": [[None, 20, "ETT - Normal"], [25, None, "ETT - Abnormal"]]}},
            f"rules: '{NAME}': no band holds 20 to 25, between [-inf, 20, 'ETT - Normal'] and",
        ),
        (
            {NAME: {"unit": "mm", "bands": [[None, 20, "ETT - Normal"], [15, None, "ETT - Abnormal"]]}},
            f"rules: '{NAME}': 15 to 20 is in two bands, [-inf, 20, 'ETT - Normal'] and",
        ),
        (
            {NAME: {"unit": "mm", "bands": [[0, None, "ETT - Normal"]]}},
            f"rules['{NAME}']: no band holds what is below 0; begin at -inf",
        ),
        (
            {NAME: {"unit": "mm", "bands": [[None, 9, "ETT - Normal"]]}},
            f"rules['{NAME}']: no band holds 9 and what is above; end at inf",
        ),
        (
            {NAME: {"unit": "mm", "bands": [[None, None, "ETT - Norml"]]}},
            f"rules['{NAME}']: 'ETT - Norml' is not one of label_columns; did you mean 'ETT - Normal'?",
        ),
    ],
)
def test_mistakes(rules: object, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        with_rules(rules)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; a TOML file is expected, with"),
        (b"", "holds no rule;"),
        (b"unit = ", "is no TOML (Invalid value"),
        (b"\xff\xfe", "damaged"),
        (b"unit = " + b"1" * 5000, "is no TOML (Exceeds the limit"),
        (b'unit = "mm"', "'unit': 'mm' is no rule; unit and bands are expected"),
        (f'["{NAME}"]\nunit = "mm"\nbands = [[nan, 3, "ETT - Normal"]]'.encode(), "is not [from, to, label], as in"),
        (f'["{NAME}"]\nunit = "mm"\nbands = [[1, 3, "ETT - Normal"], [4, inf, "ETT - Normal"]]'.encode(), "3 to 4"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "r.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        load_settings("sample_lines", [f"rules={file}"])
    assert str(error.value).startswith(f"command line: rules={file}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "bands", "message"),
    [
        (
            NAME,
            "[[-inf, 30, 'ETT - Norml'], [30, inf, 'ETT - Normal']]",
            f"'{NAME}': 'ETT - Norml' is not one of label_c",
        ),
        (NAME, "[[-inf, inf, 'NGT - Abnormal']]", f"'{NAME}': 'NGT - Abnormal' is a label of NGT, but 'ETT tip' to"),
        (NAME, "[[3, inf, 'ETT - Normal']]", f"'{NAME}': no band holds what is below 3; begin at -inf"),
        (NAME, "[[-inf, 3, 'ETT - Normal']]", f"'{NAME}': no band holds 3 and what is above; end at inf"),
        ("other", "[[-inf, inf, 'ETT - Normal']]", f"'other' is not one of measurements; there are: {NAME}"),
    ],
)
def test_mistakes_beside_other_settings_name_the_file(tmp_path: Path, name: str, bands: str, message: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(f'["{name}"]\nunit = "mm"\nbands = {bands}\n')
    with pytest.raises(SettingsError) as error:
        load_settings("sample_lines", [f"rules={file}"])
    assert str(error.value).startswith(f"command line: rules={file}: {message}")
    with pytest.raises(SettingsError) as error:
        with_rules(str(file))
    assert str(error.value).startswith(f"rules={file}: {message}")


def test_labels_are_those_of_the_tip_that_is_measured() -> None:
    """Of either tip, where two are measured; a length between landmarks may have any label."""

    def of_points(start: str, end: str) -> Settings:
        rules: Any = {"x": {"unit": "mm", "bands": [[None, 3, "ETT - Normal"], [3, None, "NGT - Abnormal"]]}}
        return dataclasses.replace(SAMPLE_LINES, measurements={"x": (start, end, "vertical")}, rules=rules)

    with pytest.raises(SettingsError) as error:
        of_points("ETT tip", "carina")
    assert str(error.value) == (
        "rules['x']: 'NGT - Abnormal' is a label of NGT, but 'ETT tip' to 'carina' is measured; a label of ETT is "
        "expected"
    )
    assert of_points("ETT tip", "NGT tip").rules_by_name["x"].bands[1][2] == "NGT - Abnormal"
    assert of_points("carina", "left diaphragm dome").rules


def test_rules_without_measurements() -> None:
    with pytest.raises(SettingsError) as error:
        dataclasses.replace(SAMPLE_LINES, measurements={})
    assert str(error.value) == f"rules: measurements is empty, so there is no '{NAME}'; set both, or leave both out"


def test_distances_are_never_negative() -> None:
    """So their bands may begin at 0, and not above."""
    measurements = {"apart": ("ETT tip", "carina", "distance")}

    def of_distance(begin: float) -> Settings:
        rules: Any = {"apart": {"unit": "mm", "bands": [[begin, None, "ETT - Normal"]]}}
        return dataclasses.replace(SAMPLE_LINES, measurements=measurements, rules=rules)

    assert of_distance(0).rules_by_name["apart"].begin == 0
    with pytest.raises(SettingsError, match=r"rules\['apart'\]: no band holds what is below 1; begin at 0"):
        of_distance(1)
