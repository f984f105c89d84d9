"""What is said of wrong names: the right one, all of a few, the nearest of many."""

import pytest

from catheters.errors import listed, unknown_name

MANY = [f"label {number}" for number in range(150)]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([], ""),
        (["a", 2], "a, 2"),
        (MANY[:15], ", ".join(MANY[:15])),
        (MANY, ", ".join(MANY[:15]) + " and 135 more"),
    ],
)
def test_a_line_has_few_names(names: list[object], line: str) -> None:
    assert listed(names) == line


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("labl 7", MANY, "did you mean 'label 7'?"),
        ("zzz", MANY, "there are 150, label 0, label 1, label 2 for some"),
        ("zzz", ["mean", "rank"], "there are: mean, rank"),
        ("zzz", [*MANY, "zx"], "there are 151, zx for some"),
        ("zzz", [], "there are none"),
    ],
)
def test_hints(name: str, known: list[str], hint: str) -> None:
    assert unknown_name(name, "a label", known) == f"'{name}' is not a label; {hint}"


def test_where_all_names_are() -> None:
    assert unknown_name("zzz", "a label", MANY, "--help has all").endswith("; --help has all")
    assert unknown_name("zzz", "a label", MANY[:3], "--help has all").endswith("there are: label 0, label 1, label 2")
