"""Published tables beside a run: what training reads, prediction and evaluation read as well."""

import json
from pathlib import Path

import pytest
from PIL import Image

from catheters.commands.evaluation_options import main as evaluate
from catheters.commands.preproc_options import main as preprocess
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.inference.inputs import list_images
from catheters.runs.build import build_table_source

NIH = Settings(
    uid_column="Image Index",
    patient_column="Patient ID",
    path_pattern="images*/**/{uid}",
    findings_column="Finding Labels",
    label_columns=("Mass", "Hernia"),
)
NIH_TABLE = """\
Image Index,Finding Labels,Patient ID
1.png,Mass|Hernia,1
2.png,No Finding,2
3.png,Mass,3
4.png,Hernia,4
5.png,No Finding,5
"""
PREDICTIONS = "Image Index,Mass,Hernia\n1.png,.9,.8\n2.png,.2,.9\n3.png,.4,.3\n4.png,.5,.6\n"


def aucs(folder: Path) -> dict[str, float]:
    scores = json.loads((folder / "metrics.json").read_text())["per_label"]
    return {of_label["label"]: of_label["roc_auc"]["value"] for of_label in scores}


@pytest.mark.slow
def test_predictions_against_nihs_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of Mass's four pairs three are in order (.9 over .2 and .5, .4 over .2); of Hernia's .8 and .6, two."""
    monkeypatch.chdir(tmp_path)
    Path("Data_Entry_2017.csv").write_text(NIH_TABLE)
    Path("t.csv").write_text(PREDICTIONS)
    Path("nih.py").write_text(
        "from catheters import Settings\n"
        "settings = Settings(uid_column='Image Index', patient_column='Patient ID', path_pattern='{uid}', "
        "findings_column='Finding Labels', label_columns=('Mass', 'Hernia'))\n"
    )
    command = ["--predictions", "t.csv", "--labels", "Data_Entry_2017.csv"]
    with pytest.raises(UserError, match=r"'Mass' is not a column of it; .*--config FILE says how training reads it"):
        evaluate(command)
    assert evaluate([*command, "--config", "nih.py"]) == 0
    assert aucs(Path("t_evaluation")) == {"Mass": 0.75, "Hernia": 0.5}


def write_run(folder: Path, settings: Settings, predictions: str = PREDICTIONS) -> None:
    folder.mkdir()
    (folder / "settings.json").write_text(settings_to_json(settings))
    (folder / "predictions.csv").write_text(predictions)


@pytest.mark.slow
def test_a_run_against_nihs_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Data_Entry_2017.csv").write_text(NIH_TABLE)
    write_run(Path("run"), NIH)
    assert evaluate(["run", "--labels", "Data_Entry_2017.csv", "--out", "out"]) == 0
    assert aucs(Path("out")) == {"Mass": 0.75, "Hernia": 0.5}


def test_elsewhere_evaluate_names_its_own_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), NIH)
    with pytest.raises(UserError, match=r"which is not here; run evaluate\.py where .* with --labels FILE") as error:
        evaluate(["run"])
    assert "dataset_folder" not in str(error.value)


CHEXPERT = Settings(
    dataset_folder="dataset",
    uid_column="Path",
    patient_column="Path",
    patient_pattern=r"/patient(\d+)/",
    path_pattern="{Path}",
    label_columns=("Edema",),
    keep_rows={"Frontal/Lateral": "Frontal"},
)


@pytest.mark.parametrize("table", ["dataset/CheXpert-v1.0-small/valid.csv", "elsewhere/valid.csv"])
@pytest.mark.parametrize("dataset_folder", ["dataset", "gone"])
def test_chexperts_valid_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, dataset_folder: str) -> None:
    """Its paths start with the data set's own folder; laterals are left out as in training."""
    monkeypatch.chdir(tmp_path)
    image = "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg"
    (tmp_path / "dataset" / image).parent.mkdir(parents=True)
    (tmp_path / "dataset" / image).touch()
    Path(table).parent.mkdir(exist_ok=True)
    Path(table).write_text(f"Path,Frontal/Lateral,Edema\n{image},Frontal,1.0\n{image}x,Lateral,0.0\n")
    settings = Settings(**{**CHEXPERT.__dict__, "dataset_folder": dataset_folder})
    if (table, dataset_folder) == ("elsewhere/valid.csv", "gone"):
        with pytest.raises(UserError, match=r"none of its images is there, .* to dataset_folder=gone or to the folder"):
            list_images([Path(table)], build_table_source(settings), None)
        return
    for pattern in (None, "{Path}"):
        images = list_images([Path(table)], build_table_source(settings), pattern)
        assert images.uids == (image,)
        assert images.paths[0].resolve() == tmp_path / "dataset" / image


def test_patients_in_chexperts_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of three patients."""
    monkeypatch.chdir(tmp_path)
    paths = [f"CheXpert-v1.0-small/valid/patient{number}/study1/view1_frontal.jpg" for number in (7, 8, 9)]
    paths.append(paths[0].replace("study1", "study2"))
    rows = [f"{path},Frontal,{number % 2}\n" for number, path in enumerate(paths)]
    Path("valid.csv").write_text("Path,Frontal/Lateral,Edema\n" + "".join(rows))
    write_run(Path("run"), CHEXPERT, "Path,Edema\n" + "".join(f"{path},.{n + 1}\n" for n, path in enumerate(paths)))
    assert evaluate(["run", "--labels", "valid.csv", "--out", "out"]) == 0
    metrics = json.loads(Path("out/metrics.json").read_text())
    assert (metrics["num_images"], metrics["num_patients"]) == (4, 3)


def test_nihs_test_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("images_001/images/1.png", "images_002/images/2.png", "images_002/images/3.png"):
        Path("dataset", name).parent.mkdir(parents=True, exist_ok=True)
        Path("dataset", name).touch()
    Path("dataset/test_list.txt").write_text("3.png\n1.png \n")
    images = list_images([Path("dataset/test_list.txt")], build_table_source(NIH), None)
    assert images.uids == ("3.png", "1.png")
    assert images.paths == (Path("dataset/images_002/images/3.png"), Path("dataset/images_001/images/1.png"))
    Path("dataset/test_list.txt").write_text("\n")
    with pytest.raises(UserError, match="is empty; a list of ids, one per line, is expected"):
        list_images([Path("dataset/test_list.txt")], build_table_source(NIH), None)


def test_predictions_of_rows_that_keep_rows_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lateral image is predicted with its folder, and is in no score."""
    monkeypatch.chdir(tmp_path)
    lines = NIH_TABLE.splitlines()
    rows = [f"{line},{view}" for line, view in zip(lines, ("view", "PA", "PA", "PA", "LL", "PA"), strict=True)]
    Path("table.csv").write_text("\n".join(rows) + "\n")
    write_run(Path("run"), Settings(**{**NIH.__dict__, "keep_rows": {"view": "PA"}}))
    assert evaluate(["run", "--labels", "table.csv", "--out", "out"]) == 0
    assert "1 of 4 images left out" in capsys.readouterr().out
    assert aucs(Path("out")) == {"Mass": 1.0, "Hernia": 0.5}


def test_leaking_folds_are_refused_before_a_cache_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for name in "abc":
        Image.new("L", (40, 40), 90).save(f"d/{name}.png")
    Path("d/train.csv").write_text("id,who,x,part\na,p,1,0\nb,p,0,1\nc,q,1,1\n")
    Path("c.py").write_text(
        "from catheters import Settings\n"
        "settings = Settings(dataset_folder='d', uid_column='id', patient_column='who', path_pattern='{uid}.png', "
        "label_columns=('x',), fold_column='part', num_folds=2, image_size=32)\n"
    )
    with pytest.raises(UserError, match=r"patients in more than one fold: 1, p for one: .* allow_leaking_folds=True"):
        preprocess(["--config", "c.py"])
    assert not Path("cache").exists()
    assert preprocess(["--config", "c.py", "allow_leaking_folds=True"]) == 0
    assert "allow_leaking_folds=True" in capsys.readouterr().err
    assert Path("cache/ranzcr_32.npy").is_file()
