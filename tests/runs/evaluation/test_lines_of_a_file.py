"""`evaluate.py --predictions` of a file with lines beside it."""

import json
from pathlib import Path

import pytest

import catheters
from catheters.commands.evaluation_options import main
from catheters.errors import UserError
from catheters.evaluation.evaluation import Choices
from catheters.io.csv_files import TableError
from tests.runs.evaluation.lines_by_hand import LABELS, figures

pytestmark = pytest.mark.slow  # a page takes seconds to write


@pytest.fixture
def others(run: Path) -> list[str]:
    """Arguments for the same predictions in a file of their own, with their lines beside it."""
    data = run.parent / "data"
    (run / "predictions.csv").rename(run.parent / "out.csv")
    (run / "predictions_lines.csv").rename(run.parent / "out_lines.csv")
    return ["--predictions", str(run.parent / "out.csv"), "--labels", str(data / "train.csv")]


def test_lines_beside_a_file(others: list[str], run: Path) -> None:
    """As predict.py writes them; the images are found from the label table."""
    annotations = str(run.parent / "data/lines.csv")
    main([*others, "--annotations", annotations, "--images", "train/{uid}.jpg"])
    folder = run.parent / "out_evaluation"
    ett, _ = json.loads((folder / "metrics.json").read_text())["lines"]["per_device"]
    assert (ett["num_images"], ett["tips_found"]["value"], ett["false_lines_per_image"]["value"]) == (5, 0.5, 0.4)
    assert len(figures((folder / "report.html").read_text())) == 2
    result = catheters.evaluate(
        others[1], others[3], annotations=annotations, images="train/{uid}.jpg", choices=Choices()
    )
    assert result.evaluation.lines is not None
    assert result.evaluation.lines.per_device[0].summary.found.value == 0.5
    with pytest.raises(UserError, match="say with --images where these are"):
        main([*others, "--annotations", annotations])
    with pytest.raises(UserError, match=r"--images \{uid\}\.png: none of the images is there, .*a0\.png for one"):
        main([*others, "--images", "{uid}.png"])
    with pytest.raises(UserError, match=r"--images train: .*\{uid\} or a \{column\} of the table is expected"):
        main([*others, "--images", "train"])
    (run.parent / "out_lines.csv").unlink()
    with pytest.raises(TableError, match=r"out_lines\.csv: no such file"):
        main([*others, "--annotations", annotations, "--images", "train/{uid}.jpg"])


def test_device_types_of_ones_own(others: list[str], run: Path) -> None:
    """As a config names them; without one nobody knows which line is of which."""
    data, config = run.parent / "data", run.parent / "mine.py"
    for file in (data / "train.csv", data / "lines.csv", run.parent / "out.csv", run.parent / "out_lines.csv"):
        text = file.read_text()
        for old, new in zip(LABELS, ("tube bad", "tube ok", "port"), strict=True):
            text = text.replace(old, new)
        file.write_text(text)
    config.write_text(
        "from catheters import Settings\n"
        'settings = Settings(label_columns=["tube bad", "tube ok", "port", "drain"],\n'
        '    heads={"tube": ["tube ok", "tube bad"], "port": ["port"], "drain": ["drain"]})\n'
    )
    options = [*others, "--annotations", str(data / "lines.csv"), "--images", "train/{uid}.jpg"]
    with pytest.raises(UserError, match=r"none of the labels is of a device type.* heads, in a config that --config"):
        main(options)
    main([*options, "--config", str(config)])
    tube, port = json.loads((run.parent / "out_evaluation/metrics.json").read_text())["lines"]["per_device"]
    assert (tube["device_type"], tube["num_tips"], tube["tips_found"]["value"]) == ("tube", 4, 0.5)
    assert (port["device_type"], port["num_tips"]) == ("port", 0)


def test_a_file_without_lines(others: list[str], run: Path) -> None:
    """Images alone show the hardest cases."""
    main([*others, "--images", "train/{uid}.jpg"])
    folder = run.parent / "out_evaluation"
    assert json.loads((folder / "metrics.json").read_text())["lines"] is None
