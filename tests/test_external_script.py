"""`evaluate.py --external` as a user runs it: a tiny run on a second synthetic hospital, and what is refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from catheters.commands.evaluation_options import main
from catheters.config.loading import config_text, load_settings
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.labels import RANZCR_LABELS
from catheters.runs.external.frozen_run import read_frozen_run
from catheters.runs.external.overlap import check_ids
from catheters.runs.external.theirs import read_config
from catheters.synthetic import generate_sample
from tests.conftest import assert_user_error, run_script

pytestmark = pytest.mark.slow  # a model is trained for them

WriteTheirs = Callable[..., Path]
NUM_IMAGES = 30


@pytest.fixture(scope="session")
def second_hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 synthetic images of another hospital, with the views and ages that its table tells."""
    folder = tmp_path_factory.mktemp("second")
    generate_sample(folder, num_images=NUM_IMAGES, num_test_images=0, image_size=64, hospital="second", num_workers=1)
    table = pd.read_csv(folder / "train.csv")
    table["view"] = ["AP", "PA", "AP"] * (NUM_IMAGES // 3)
    table.to_csv(folder / "train.csv", index=False)
    return folder


@pytest.fixture
def run(evaluated_run: Path, tmp_path: Path) -> Path:
    """A copy of the evaluated run, which the test may write into."""
    return Path(shutil.copytree(evaluated_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def validated_run(evaluated_run: Path, second_hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the evaluated run, validated on the second hospital by the script; not to be changed."""
    folder = tmp_path_factory.mktemp("validated")
    run = Path(shutil.copytree(evaluated_run, folder / "run"))
    (folder / "theirs.py").write_text(config_text(Settings(dataset_folder=str(second_hospital))))
    done = run_script(
        "evaluate.py", "--external", run, "--config", folder / "theirs.py", "--workers", "1", "--by", "view"
    )
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return run


@pytest.fixture
def theirs(second_hospital: Path, tmp_path: Path) -> WriteTheirs:
    """Writes theirs.py of a copy of the second hospital's table, changed as the test says."""

    def write(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table, **settings: object) -> Path:
        table = change(pd.read_csv(second_hospital / "train.csv"))
        table.to_csv(second_hospital / f"{tmp_path.name}.csv", index=False)
        file = tmp_path / "theirs.py"
        values = {"dataset_folder": str(second_hospital), "label_table": f"{tmp_path.name}.csv", **settings}
        file.write_text(config_text(dataclasses.replace(Settings(), **values)))  # type: ignore[arg-type]
        return file

    return write


def read(run: Path, name: str = "theirs") -> dict:
    return json.loads((run / "external" / name / "external.json").read_text())


def test_a_run_on_a_second_hospital(validated_run: Path, second_hospital: Path, tmp_path: Path) -> None:
    said, run = (validated_run.parent / "stdout.txt").read_text(), validated_run
    assert "On 30 images of" in said and "a page to look at" in said
    assert "patients for" in said and "model by model" in said
    folder = run / "external" / "theirs"
    found = read(run)
    assert (found["num_images"], found["image_kind"]) == (NUM_IMAGES, "synthetic")
    # The predictions are those of predict.py, and the scores those of scikit-learn.
    written = pd.read_csv(folder / "predictions.csv")
    images = [second_hospital / "train" / f"{uid}.jpg" for uid in written["StudyInstanceUID"]]
    predicted = run_script(
        "predict.py", "--model", run, *images, "--out", tmp_path / "p.csv", "--workers", "1", "--batch-size", "4"
    )
    assert predicted.returncode == 0, predicted.stderr
    by_predict = pd.read_csv(tmp_path / "p.csv").set_index("StudyInstanceUID").loc[written["StudyInstanceUID"]]
    assert written[list(RANZCR_LABELS)].to_numpy() == pytest.approx(
        by_predict[list(RANZCR_LABELS)].to_numpy(), abs=1e-6
    )
    table = pd.read_csv(second_hospital / "train.csv").set_index("StudyInstanceUID").loc[written["StudyInstanceUID"]]
    of_labels = {entry["label"]: entry for entry in found["per_label"]}
    assert list(of_labels) == list(RANZCR_LABELS)
    label = "NGT - Normal"
    assert of_labels[label]["roc_auc"]["here"]["value"] == pytest.approx(roc_auc_score(table[label], written[label]))
    ratio = table[label].sum() / written[label].sum()
    assert of_labels[label]["observed_to_expected"]["here"]["value"] == pytest.approx(ratio)
    assert of_labels[label]["prevalence"]["own"]["value"] is not None
    # The mean of the models, each alone, is what the sentence holds against the run's own.
    areas = [
        of["roc_auc"]["alike"]["value"] for of in of_labels.values() if of["roc_auc"]["alike"]["value"] is not None
    ]
    assert found["alike_macro_roc_auc"]["value"] == pytest.approx(np.mean(areas))
    assert f"model by model it is {np.mean(areas):.3f}" in found["summary"] and "compared labels" in found["summary"]
    metrics = {entry["label"]: entry for entry in json.loads((run / "metrics.json").read_text())["per_label"]}
    assert of_labels[label]["roc_auc"]["own"] == metrics[label]["roc_auc"]
    assert of_labels[label]["sensitivity"]["own"] == metrics[label]["operating_point"]["sensitivity"]
    assert [group["value"] for group in found["subgroups"]] == ["AP", "PA"]
    assert found["case_mix"]["features"] is None or len(found["case_mix"]["features"]["farthest"]) == NUM_IMAGES
    page = (folder / "external.html").read_text()
    assert "Synthetic data." in page and "not a medical device" in page and "model by model" in page
    assert "Not tried: it takes 50 patients, of whom 25 are fitted on" in page
    assert ">nan" not in page.lower() and "Infinity" not in (folder / "external.json").read_text()
    assert "not a medical device" in (folder / "EXTERNAL_CARD.md").read_text()
    card = (run / "MODEL_CARD.md").read_text()
    assert card.count("## External validation") == 1 and "- [theirs](external/theirs/EXTERNAL_CARD.md)" in card


def test_the_same_command_again_predicts_nothing_anew(
    validated_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else comes out, and the model card names the validation once."""
    run = Path(shutil.copytree(validated_run.parent, tmp_path / "copy")) / "run"
    found, card = read(validated_run), (validated_run / "MODEL_CARD.md").read_text()
    (run / "external" / "theirs" / "external.json").unlink()
    assert main(["--external", str(run), "--config", str(validated_run.parent / "theirs.py"), "--by", "view"]) == 0
    assert f"{NUM_IMAGES} of {NUM_IMAGES} images were predicted before" in capsys.readouterr().out
    again = read(run)
    for entry in (found, again):
        del entry["run"], entry["command"]
    assert again == found
    assert (run / "MODEL_CARD.md").read_text() == card


def test_an_evaluation_knows_the_validations_of_what_is_frozen(validated_run: Path, tmp_path: Path) -> None:
    """The model card names them again, and checklists are answered by them, unless the thresholds are others."""
    run = Path(shutil.copytree(validated_run.parent, tmp_path / "copy")) / "run"
    summary = read(run)["summary"]

    def evaluated(*options: str) -> tuple[str, str]:
        assert main([str(run), "--checklist", "claim2024", *options]) == 0
        return (run / "MODEL_CARD.md").read_text(), (run / "checklist_claim2024.md").read_text()

    card, checklist = evaluated("--calibration", "temperature")
    assert card.count("## External validation") == 1 and summary in card
    assert summary in checklist and "external/theirs/external.json" in checklist
    card, checklist = evaluated("--operating-point", "specificity=0.8")
    assert "## External validation" not in card and summary not in checklist


def test_predictions_that_were_made_elsewhere(validated_run: Path, run: Path, second_hospital: Path) -> None:
    """With the run's calibration, a temperature for each label, or without: the same numbers."""
    out = run.parent
    calibrated = validated_run / "external" / "theirs" / "predictions.csv"
    frame = pd.read_csv(calibrated)
    maps = json.loads((run / "calibration.json").read_text())["maps"]
    for label in RANZCR_LABELS:
        frame[label] = np.log(frame[label] / (1 - frame[label])) / maps[label]["slope"]
    frame.drop(columns="patient").to_csv(out / "logits.csv", index=False)
    told = ["NGT - Normal", "CVC - Normal"]
    table = pd.read_csv(second_hospital / "train.csv")[["StudyInstanceUID", "PatientID", *told]]
    table.to_csv(out / "labels.csv", index=False)
    command = ["--external", str(run), "--labels", str(out / "labels.csv"), "--predictions"]
    assert main([*command, str(calibrated), "--name", "a"]) == 0
    assert main([*command, str(out / "logits.csv"), "--logits", "--name", "b"]) == 0
    of_labels = [
        {entry["label"]: entry for entry in read(*of)["per_label"]} for of in ((validated_run,), (run, "a"), (run, "b"))
    ]
    for label in told:
        for name in ("roc_auc", "sensitivity", "specificity", "observed_to_expected", "slope", "brier"):
            here = [of[label][name]["here"]["value"] for of in of_labels]
            assert here[1:] == pytest.approx(here[:1] * 2, abs=1e-6), name
    assert {caveat["kind"] for caveat in read(run, "a")["caveats"]} == {"images_not_compared", "labels_not_told"}
    # The run has several models: together they raise no alarm of what only single ones could tell.
    assert read(validated_run)["is_model_by_model"] and not read(run, "a")["is_model_by_model"]
    page = (run / "external" / "a" / "external.html").read_text()
    assert "raise no alarm here" in page and "model by model" not in page.lower() and "one in 20" not in page
    assert {"sensitivity", "specificity", "slope"} <= set(of_labels[1][told[0]]["not_compared"])


def test_nothing_else_is_overwritten(validated_run: Path, theirs: WriteTheirs, tmp_path: Path) -> None:
    """Neither a run, nor predictions of another kind, nor the validation of another config of the same name."""
    run = Path(shutil.copytree(validated_run, tmp_path / "copy"))
    before = (run / "predictions.csv").read_bytes()
    config = theirs()
    assert "has the validation of" in refused(run, config)
    assert "has a settings.json that is of no validation" in refused(run, config, "--out", str(run))
    assert ".. is no name of a folder" in refused(run, config, "--name", "..")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "predictions.csv").write_text("id\n")
    assert "has a predictions.csv that is of no" in refused(run, config, "--out", str(tmp_path / "other"))
    assert (run / "predictions.csv").read_bytes() == before


def test_a_label_table_that_was_changed_since_gives_no_own_truth(run: Path) -> None:
    """One positive more, and the prevalence is no longer that of the evaluation."""
    frozen = read_frozen_run(run)
    assert frozen.own.has_truth and not frozen.why_no_truth
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["per_label"][0]["num_positives"] += 1
    (run / "metrics.json").write_text(json.dumps(metrics))
    changed = read_frozen_run(run)
    assert not changed.own.has_truth and not changed.own.columns
    assert changed.why_no_truth == "its label table was changed since its evaluation"


def test_ids_of_patients_are_said_on_the_terminal_alone(
    run: Path, theirs: WriteTheirs, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = read_frozen_run(run)
    patient = str(frozen.own.predicted.patient_ids[0])
    images = read_config(load_settings(theirs(lambda table: table.assign(PatientID=patient))), Path("t"), frozen.labels)
    (caveat,) = check_ids(frozen, images)
    assert patient not in caveat.text and "1 patient with the id" in caveat.text
    assert patient in capsys.readouterr().out


def test_labels_that_are_not_told_or_unknown(
    run: Path, theirs: WriteTheirs, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column that is missing is not validated; a blank counts nowhere; further columns are passed over."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table[["StudyInstanceUID", "PatientID", "ETT - Normal", "CVC - Normal"]].assign(Pneumothorax=0)
        changed["ETT - Normal"] = changed["ETT - Normal"].astype(object)
        changed.loc[:9, "ETT - Normal"] = ""
        return changed

    config = theirs(change, label_values={"": "unknown"})
    assert main(["--external", str(run), "--config", str(config), "--workers", "1"]) == 0
    assert "does not tell ETT - Abnormal, ETT - Borderline, NGT - Abnormal" in capsys.readouterr().err
    of_labels = {entry["label"]: entry for entry in read(run)["per_label"]}
    assert of_labels["ETT - Normal"]["num_known"] == NUM_IMAGES - 10
    assert of_labels["Swan Ganz Catheter Present"]["verdict"] == "Not validated: the table does not tell this label."
    assert of_labels["Swan Ganz Catheter Present"]["roc_auc"]["here"]["value"] is None


def refused(run: Path, config: Path, *more: str) -> str:
    with pytest.raises(UserError) as error:
        main(["--external", str(run), "--config", str(config), "--workers", "1", *more])
    return str(error.value)


def test_images_of_the_training_are_refused_by_id(run: Path, sample_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "same.py"
    config.write_text(config_text(Settings(dataset_folder=str(sample_folder))))
    message = refused(run, config)
    assert "40 of 40 images have the id of an image of the training" in message and message.count("2.25.") == 5


def test_images_of_the_training_are_refused_by_what_they_show(run: Path, sample_folder: Path, tmp_path: Path) -> None:
    """One of four images is a training image, compressed again and a little brighter, under another name."""
    folder = tmp_path / "copied"
    generate_sample(folder, num_images=4, num_test_images=0, image_size=64, hospital="second", seed=3, num_workers=1)
    table = pd.read_csv(folder / "train.csv")
    image = cv2.imread(str(next(iter(sorted((sample_folder / "train").glob("*.jpg"))))), cv2.IMREAD_GRAYSCALE)
    victim = table["StudyInstanceUID"][2]
    brighter = np.clip(image * 0.97 + 4, 0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / "train" / f"{victim}.jpg"), brighter, [cv2.IMWRITE_JPEG_QUALITY, 85])
    config = tmp_path / "copied.py"
    config.write_text(config_text(Settings(dataset_folder=str(folder))))
    message = refused(run, config)
    assert f"1 of 4 images show what an image of the training shows: {victim}" in message


def test_wrong_names_of_labels_are_refused(run: Path, theirs: WriteTheirs) -> None:
    misspelt = theirs(
        lambda table: table.rename(columns={"ETT - Normal": "ETT  Normal"}),
        label_columns=("NGT - Normal", "CVC - Normal"),
    )
    assert "'ETT  Normal' is none of the model's labels; is 'ETT - Normal' meant?" in refused(run, misspelt)
    renamed = dict(zip(RANZCR_LABELS, map("finding {}".format, range(11)), strict=True))
    foreign = theirs(lambda table: table.rename(columns=renamed), label_columns=tuple(renamed.values()))
    assert "tells none of the model's labels (ETT - Abnormal" in refused(run, foreign)
    assert not (run / "external").exists()  # nothing is left of what was refused


def test_tables_that_cannot_validate_are_refused(run: Path, theirs: WriteTheirs) -> None:
    one_class = theirs(lambda table: table.assign(**dict.fromkeys(RANZCR_LABELS, 0)))
    assert "no label has both positives and negatives there" in refused(run, one_class)
    no_patients = theirs(lambda table: table.drop(columns="PatientID"))
    assert "PatientID" in refused(run, no_patients)
    no_images = theirs(path_pattern="nowhere/{uid}.jpg")
    assert "none of its 30 images could be predicted" in refused(run, no_images, "--name", "elsewhere")
    assert "--by machine:" in refused(run, theirs(), "--by", "machine")
    assert "--want-width slop=0.1: 'slop' is not a number; did you mean 'slope'?" in refused(
        run, theirs(), "--want-width", "slop=0.1"
    )


def test_runs_that_are_not_frozen_are_refused(run: Path, theirs: WriteTheirs) -> None:
    config = theirs()
    predictions = run / "predictions.csv"
    (run / "metrics.json").rename(run / "elsewhere.json")
    assert f"{run}: has no evaluation; run evaluate.py {run} first" in refused(run, config)
    (run / "elsewhere.json").rename(run / "metrics.json")
    predictions.write_text(predictions.read_text() + "\n")
    assert "is the evaluation of other predictions than" in refused(run, config)
    assert "no such folder; give a run folder" in refused(run.parent / "nothing", config)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--external", "run"], "give --config theirs.py, or --predictions FILE and --labels FILE"),
        (["saved", "--external", "run", "--config", "a.py"], "--external names the one run"),
        (["--external", "run", "--config", "a.py", "--labels", "b.csv"], "--labels goes with --predictions"),
        (["--external", "run", "--predictions", "a.csv"], "--predictions goes with --labels"),
        (["--external", "run", "--predictions", "a.csv", "b.csv", "--labels", "c.csv"], "one file of predictions"),
        (["--external", "run", "--predictions", "a.csv", "--labels", "b.csv", "--device", "cpu"], "no model is run"),
        (["--external", "run", "--config", "a.py", "--logits"], "--logits goes with --predictions"),
        (["--external", "run", "--config", "a.py", "--prevalence", "ETT=0.1"], "--prevalence does nothing"),
        (["--external", "run", "--config", "a.py", "--operating-point", "youden"], "the run's evaluation is frozen"),
        (["--external", "run", "--config", "a.py", "--checklist", "claim2024"], "--checklist does nothing"),
        (["--external", "run", "--config", "a.py", "--abstain-error", "0.1"], "--abstain-error does nothing"),
        (["--external", "run", "--config", "a.py", "--name", "a/b"], "--name: the name of a folder"),
        (["--external", "run", "--config", "a.py", "--batch-size", "0"], "--batch-size: 1 or more"),
        (["saved", "--name", "a"], "--name goes with --external"),
        (["saved", "--want-width", "slope=1"], "--want-width goes with --external"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2
    assert text in capsys.readouterr().err


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    result = run_script("evaluate.py", "--external", tmp_path / "none", "--config", "theirs.py")
    assert_user_error(result, "--external", "no such folder; give a run folder that train.py wrote")
