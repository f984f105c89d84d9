"""The flow of images, of a run whose table, files and settings leave some out, and of predictions in a file."""

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from catheters.commands.evaluation_options import main
from catheters.runs.evaluation.inputs import read_run
from catheters.runs.paper.flow import trace_images

pytestmark = pytest.mark.slow


def table_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run.parent.parent / "data/train.csv", dtype=str, na_filter=False)


def test_every_image_is_accounted_for(study_run: Path) -> None:
    flow, table = pd.read_csv(study_run / "flow.csv", keep_default_na=False), table_of(study_run)
    predictions = pd.read_csv(study_run / "predictions.csv", dtype=str)

    def patients(rows: pd.DataFrame) -> int:
        return int(rows["PatientID"].nunique())

    expected = [
        ("in the label table", "", 40, patients(table)),
        ("left out of the study", "dropped by keep_rows", 2, patients(table[:2])),
        ("left out of the study", "listed in exclude_ids", 1, 1),
        ("looked for", "", 37, patients(table[3:])),
        ("left out", "no such file", 1, 1),
        ("left out", "could not be read", 1, 1),
        ("evaluated", "", 35, patients(table[5:])),
    ]
    for fold in "01":
        here = predictions["fold"] == fold
        for part, rows in (("validation", predictions[here]), ("training", predictions[~here])):
            expected.append((f"fold {fold}, {part}", "", len(rows), rows["patient"].nunique()))
    assert [tuple(row) for row in flow.itertuples(index=False)] == expected
    left_out = pd.read_csv(study_run / "left_out.csv", dtype=str)
    assert left_out["StudyInstanceUID"].tolist() == table["StudyInstanceUID"][:5].tolist()
    assert left_out["patient"].tolist() == table["PatientID"][:5].tolist()
    images = json.loads((study_run / "metrics.json").read_text())["images"]
    assert images["evaluated"] == {"images": 35, "patients": patients(table[5:])}
    assert [entry["images"] for entry in images["left_out"]] == [1, 1]


def test_the_diagram_says_the_same(study_run: Path) -> None:
    """Its texts, as they stand in the SVG."""
    tree = ElementTree.parse(study_run / "flow.svg")
    texts = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:2] == ["In train.csv", f"40 images, {table_of(study_run)['PatientID'].nunique()} patients"]
    assert "Left out of the study: 3 images" in texts
    assert "1  could not be read" in texts
    assert "Evaluated, each by a model that has not seen the patient" in texts
    assert "Fold 1" in texts


def test_without_the_cache_it_is_not_known_why(study_run: Path, tmp_path: Path) -> None:
    """And it is not guessed."""
    given = read_run(study_run, None)
    assert given.settings is not None
    gone = dataclasses.replace(given, settings=dataclasses.replace(given.settings, cache_folder=str(tmp_path)))
    reasons = {why: count.images for why, count in trace_images(gone).left_out.items()}
    assert reasons == {"no prediction, it is not known why": 2}


def test_of_a_fold_that_is_not_finished(study_run: Path) -> None:
    """Its images are left out for that, and nothing is said of what was trained on."""
    given = read_run(study_run, None)
    assert given.evaluated.folds is not None
    first = given.evaluated.folds == 0
    part = dataclasses.replace(given, evaluated=given.evaluated.take(first), rows=given.rows[first])
    flow = trace_images(part)
    assert flow.left_out["in a fold that is not finished"].images == int((~first).sum())
    assert [fold.training for fold in flow.folds] == [None]


def test_of_a_file_of_predictions(tmp_path: Path) -> None:
    """Rows with a reason could not be predicted; patients that nobody names are not counted."""
    (tmp_path / "l.csv").write_text("id,x\na,1\nb,0\nc,1\nd,0\ne,\n")
    (tmp_path / "p.csv").write_text("id,x,reason\na,0.9,\nb,0.2,\nc,,broken\ne,0.4,\n")
    files = ["--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "l.csv")]
    assert main([*files, "--label-values", '{"": "unknown"}', "--checklist", "stard-ai"]) == 0
    folder = tmp_path / "p_evaluation"
    flow = pd.read_csv(folder / "flow.csv", keep_default_na=False).set_index("reason")
    assert flow.loc["could not be predicted", ["step", "images", "patients"]].tolist() == ["left out", 1, ""]
    assert flow.loc["no prediction, it is not known why", "images"] == 1
    images = json.loads((folder / "metrics.json").read_text())["images"]
    assert (images["evaluated"]["images"], images["without_known_label"]) == (3, 1)
    items = pd.read_csv(folder / "checklist_stard_ai.csv", dtype=str, keep_default_na=False).set_index("item")
    assert items.loc["15b", "status"] == "author"  # nothing is known of how it was trained
    assert "Not known from this evaluation" in items.loc["15b", "author"]
    assert "could not be read: 1." in items.loc["19", "answer"]
    assert "Unknown: x 1." in items.loc["20", "answer"]
