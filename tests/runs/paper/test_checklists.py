"""Checklists of a real run: every item is there, what is answered is what the files say, what no run knows is the
author's."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import catheters
from catheters.commands.evaluation_options import main, parse_options
from catheters.errors import SettingsError
from catheters.evaluation.evaluation import Choices
from catheters.evaluation.options import CHECKLIST_KEYS
from catheters.runs.evaluation.evaluate import background_of, evaluate_input
from catheters.runs.evaluation.inputs import read_run
from catheters.runs.paper.answers import data, model, results
from catheters.runs.paper.checklist import Answer
from catheters.runs.paper.facts import Facts, collect_facts
from catheters.runs.paper.study import CHECKLISTS, describe_study

NUMBERS = {
    "claim2024": [str(number) for number in range(1, 45)],
    "tripod-ai": [
        *("1", "2", "3a", "3b", "3c", "4", "5a", "5b", "6a", "6b", "6c", "7", "8a", "8b", "8c", "9a", "9b", "9c", "10"),
        *(
            "11",
            *(f"12{part}" for part in "abcdefg"),
            "13",
            "14",
            "15",
            "16",
            "17",
            *(f"18{part}" for part in "abcdef"),
        ),
        *("19", "20a", "20b", "20c", "21", "22", "23a", "23b", "24", "25", "26", "27a", "27b", "27c"),
    ],
    "stard-ai": [
        *(str(number) for number in range(1, 15)),
        *("15a", "15b", "15c", "15d", "16a", "16b", "16c", "17a", "17b"),
        *(str(number) for number in range(18, 26)),
        *("26a", "26b", *(str(number) for number in range(27, 40)), "40a", "40b"),
    ],
}
"""As the sources number their items."""
AUTHORS = {
    "claim2024": ("11", "16", "34", "44"),
    "tripod-ai": ("17", "18a", "18b", "19"),
    "stard-ai": ("6", "12", "26a", "28", "35", "38", "39"),
}
"""What no run knows."""


def items_of(run: Path, key: str) -> pd.DataFrame:
    file = run / f"checklist_{key.replace('-', '_')}.csv"
    return pd.read_csv(file, dtype=str, keep_default_na=False).set_index("item")


def test_items_are_numbered_as_in_the_sources() -> None:
    assert tuple(CHECKLISTS) == CHECKLIST_KEYS
    for key, checklist in CHECKLISTS.items():
        assert [item.number for item in checklist.items] == NUMBERS[key]
        # Sections stand together, as headings need it.
        sections = [item.section for item in checklist.items]
        changes = [section for number, section in enumerate(sections) if section != [None, *sections][number]]
        assert len(changes) == len(set(changes))


@pytest.mark.slow
@pytest.mark.parametrize("key", CHECKLIST_KEYS)
def test_each_item_is_answered_or_the_authors(study_run: Path, key: str) -> None:
    items = items_of(study_run, key)
    assert items.index.tolist() == NUMBERS[key]
    for number, row in items.iterrows():
        has_answer, has_author = row["answer"] != "", row["author"] != ""
        assert (has_answer, has_author) == {
            "answered": (True, False),
            "in part": (True, True),
            "author": (False, True),
        }[row["status"]], number
        assert (row["source"] != "") == has_answer
    assert set(items.loc[list(AUTHORS[key]), "status"]) == {"author"}
    page = (study_run / f"checklist_{key.replace('-', '_')}.md").read_text()
    counts = items["status"].value_counts()
    expected = f"{counts['answered']} of {len(items)} items answered from the run, {counts['in part']} in part"
    assert expected in page
    assert "**These X-rays are synthetic.**" in page
    assert page.count("\n*Author:* ") == (items["author"] != "").sum()


@pytest.mark.slow
def test_answers_are_what_the_files_say(study_run: Path) -> None:
    """Numbers of metrics.json, settings.json, environment.json and the checkpoints' log, as they stand in CLAIM."""
    answers = items_of(study_run, "claim2024")["answer"]
    metrics = json.loads((study_run / "metrics.json").read_text())
    auc = metrics["macro"]["roc_auc"]
    interval = f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    assert interval in answers["2"] and interval in answers["37"]
    for entry in metrics["per_label"]:
        rate = entry["operating_point"]["sensitivity"]
        if rate["value"] is not None:
            assert f"{entry['label']} {rate['value']:.3f}" in answers["38"]
        assert f"{entry['label']} {entry['num_positives']} of {entry['num_positive_patients']} patient" in answers["21"]
    versions = json.loads((study_run / "environment.json").read_text())["environments"][0]["versions"]
    assert f"torch {versions['torch']}" in answers["23"]
    assert "32 x 32 pixels" in answers["9"] and "both sides stretched" in answers["9"]
    assert answers["8"].startswith("Rows are kept where kept is yes; images listed in listed.txt are left out.")
    assert "dropped by keep_rows (2 images" in answers["8"]
    assert "2 folds for cross-validation, whole patients at a time, balanced in every label, by seed 0" in answers["19"]
    assert "timm's test_resnet" in answers["22"] and "a sigmoid each" in answers["22"] and "(3)" in answers["22"]
    assert "All weights start at random. Seed 0." in answers["24"]
    assert "At most 1 epochs per fold, Adam, peak learning rate 0.002" in answers["25"]
    assert "HorizontalFlip (p 0.5)" in answers["25"]
    assert "fold 0 epoch 1, fold 1 epoch 1" in answers["26"]
    assert answers["18"].startswith("Of the readers in columns {label} [{reader}], 3 readers (A, B, C): ")
    assert answers["18"].endswith(" Whether they made the label table is yours to say.")
    kappa = metrics["readers"]["all_readers"][0]["kappa"]["value"]
    assert f"Fleiss' kappa of 3 {kappa:.3f}" in answers["18"]
    fingerprint = json.loads((study_run / "environment.json").read_text())["data_fingerprint"]
    assert fingerprint in answers["43"]


@pytest.mark.slow
def test_the_number_of_parameters(study_run: Path) -> None:
    """Of the checkpoint, by torch itself."""
    weights = torch.load(study_run / "fold0/best.pt", weights_only=True)["model"]
    number = sum(tensor.numel() for tensor in weights.values())
    assert f"{number:,} parameters" in items_of(study_run, "stard-ai").loc["15a", "answer"]


@pytest.mark.slow
def test_subgroups_and_cross_tabulation(study_run: Path) -> None:
    answers = items_of(study_run, "stard-ai")["answer"]
    metrics = json.loads((study_run / "metrics.json").read_text())
    assert "Macro ROC AUC by Sex: Sex (empty) (" in answers["23"]
    first = metrics["per_label"][0]
    confusion = " / ".join(str(number) for number in first["operating_point"]["confusion"].values())
    assert f"{first['label']} {confusion};" in answers["30"]
    deferred = metrics["abstention"]["per_label"][0]
    assert (
        f"{deferred['num_deferred_positives']} positive and {deferred['num_deferred_negatives']} negative"
        in answers["19"]
    )
    assert "could not be read: 1." in answers["19"]


@pytest.mark.slow
def test_further_results_of_a_run(study_run: Path) -> None:
    """In metrics.json, metrics.csv and on the page."""
    metrics = json.loads((study_run / "metrics.json").read_text())
    at = metrics["sensitivity_at_specificity"]
    assert at["specificity"] == 0.9
    assert len(at["per_label"]) == 3 and set(at["per_label"][0]["fold_thresholds"]) == {"0", "1"}
    assert metrics["by_patient"]["num_patients"] == metrics["num_patients"]
    table = pd.read_csv(study_run / "metrics.csv")
    value = table.query("of == 'macro by patient' and metric == 'roc_auc'")["value"].item()
    assert value == pytest.approx(metrics["by_patient"]["macro"]["roc_auc"]["value"])
    row = table.query("of == 'label' and metric == 'positive_likelihood_ratio'").iloc[0]
    point = metrics["per_label"][0]["operating_point"]
    sensitivity, specificity = (point[name]["value"] for name in ("sensitivity", "specificity"))
    assert row["value"] == pytest.approx(sensitivity / (1 - specificity))
    assert "Infinity" not in (study_run / "metrics.json").read_text()
    page = (study_run / "report.html").read_text()
    for anchor in ("specificity", "patients", "ratios", "readers", "images"):
        assert f'<h2 id="{anchor}">' in page
        assert f'href="#{anchor}"' in page
    assert len(re.findall(r'<p class="study"><img src="data:image/svg', page)) == 2


@pytest.fixture(scope="module")
def facts(study_run: Path) -> Facts:
    """Of the run, whose answers are asked for as if it had other settings."""
    given = read_run(study_run, None)
    evaluation = evaluate_input(given, Choices()).evaluation
    study = describe_study(given, evaluation)
    background = background_of(given, study, "evaluate.py", None, None)
    return collect_facts(given, evaluation, background, study.flow, study.table_one, {})


def with_settings(facts: Facts, **changed: object) -> Facts:
    assert facts.settings is not None
    return dataclasses.replace(facts, settings=dataclasses.replace(facts.settings, **changed))


def answer(item: Callable[[Facts], Answer | None], facts: Facts) -> str:
    found = item(facts)
    assert found is not None
    return found.text


@pytest.mark.slow
def test_unknown_labels_of_a_teacher(facts: Facts) -> None:
    """They are in the loss, so it is not said that they are nowhere."""
    assert answer(data.missing_data, facts).endswith("does not count in the loss. Nothing is imputed.")
    taught = answer(data.missing_data, with_settings(facts, teacher="saved_models/first", pseudo_labels="confident"))
    assert (
        "unknown labels were filled in by out-of-fold predictions of the teacher saved_models/first (confident "
        "pseudo-labels, where a probability or its opposite is 0.9 or more)."
    ) in taught
    assert "imputed" not in taught and "does not count in the loss" not in taught
    soft = answer(data.missing_data, with_settings(facts, soft_labels=True))
    assert "a share between 0 and 1, which scores take for unknown, does. Nothing is imputed." in soft


@pytest.mark.slow
def test_of_a_part_of_the_folds(facts: Facts) -> None:
    """It is called by how many are finished, not by how many there are."""
    assert "by 2-fold cross-validation; no patient is in two folds." in answer(model.study_goal, facts)
    one = dataclasses.replace(facts, flow=dataclasses.replace(facts.flow, folds=facts.flow.folds[:1]))
    one, three = with_settings(one, num_folds=5), with_settings(facts, num_folds=3)
    for item in (model.study_goal, results.headline, results.internal_testing):
        assert "on one fold of 5 that was held out" in answer(item, one)
        assert "on 2 folds of 3, each held out from a model of its own" in answer(item, three)
    for item in (model.study_goal, results.internal_testing, data.partitions):
        assert "cross-validation" not in answer(item, one)
    assert answer(data.partitions, one).endswith(" The other folds are not evaluated.")
    assert "scored as one set" in answer(results.internal_testing, facts)
    assert "scored as one set" not in answer(results.internal_testing, one)


@pytest.mark.slow
def test_folds_of_a_column_and_another_held_out_set(facts: Facts) -> None:
    """Nobody says that such folds are balanced, or that there is no other set where one was validated on."""
    assert "folds are balanced in every label" in answer(model.class_imbalance, facts)
    assert "balanced" not in answer(model.class_imbalance, with_settings(facts, fold_column="fold"))
    assert answer(results.internal_testing, facts).endswith("; there is no other held-out set in this run.")
    validated = dataclasses.replace(facts, validations={"elsewhere": {}})
    assert answer(results.internal_testing, validated).endswith("so scores are slightly optimistic.")


@pytest.mark.slow
def test_in_python_of_leaking_folds(study_run: Path, tmp_path: Path) -> None:
    """Which are not called out of fold; a checklist that is not known is said before anything is written."""
    run = shutil.copytree(study_run, tmp_path / "run")
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(settings | {"allow_leaking_folds": True}))
    result = catheters.evaluate(run)
    with pytest.raises(SettingsError, match="checklists: 'claim' is not known; did you mean 'claim2024'"):
        result.write(tmp_path / "other", checklists=["claim"])
    assert not (tmp_path / "other").exists()
    folder = result.write(tmp_path / "new", checklists=["claim2024"])
    assert sorted(file.name for file in folder.glob("checklist*")) == [
        "checklist_claim2024.csv",
        "checklist_claim2024.md",
    ]
    assert "has not seen" in (study_run / "flow.svg").read_text()
    assert "has not seen" not in (folder / "flow.svg").read_text()
    items = items_of(folder, "claim2024")
    assert items.loc["20", "answer"].startswith("The folds leak: ")
    assert items.loc["32", "status"] == "author"
    assert "2-fold cross-validation; the folds leak: " in items.loc["6", "answer"]
    assert "has not seen" not in items.loc["27", "answer"]


def test_a_checklist_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["run", "--checklist", "claim"])
    assert "invalid choice: 'claim'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_options(["run", "--at-specificity", "1"])
    assert "--at-specificity: above 0 and below 1" in capsys.readouterr().err


def test_readers_columns(tmp_path: Path) -> None:
    """Named as the user says; what is wrong with them is said before anything is written."""
    (tmp_path / "l.csv").write_text("id,patient,x,x by A,x by B\n1,p,1,1,1\n2,q,0,0,\n3,r,1,0,1\n4,s,0,0,0\n")
    (tmp_path / "p.csv").write_text("id,x\n1,0.9\n2,0.3\n3,0.6\n4,0.2\n")
    files = ["--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "l.csv")]
    assert main([*files, "--reader-columns", "{label} by {reader}"]) == 0
    readers = json.loads((tmp_path / "p_evaluation/metrics.json").read_text())["readers"]
    assert readers["readers"] == ["A", "B"]
    assert readers["between_readers"][0]["num_images"] == 3  # B has not read the second
    assert readers["readers_against_labels"][0]["sensitivity"]["value"] == 0.5
    assert main(files) == 0  # by the usual names there are none
    assert json.loads((tmp_path / "p_evaluation/metrics.json").read_text())["readers"] is None


def test_a_label_that_is_part_of_another(tmp_path: Path) -> None:
    """A reader's column belongs to the longest label that it names, and a label is no reader's column."""
    header = "id,Normal,ETT - Normal,Kim ETT - Normal,Kim Normal\n"
    (tmp_path / "l.csv").write_text(f"{header}1,1,1,1,1\n2,0,0,0,0\n3,1,0,0,0\n")
    (tmp_path / "p.csv").write_text("id,Normal,ETT - Normal\n1,0.9,0.9\n2,0.3,0.3\n3,0.6,0.2\n")
    files = ["--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "l.csv")]
    assert main([*files, "--reader-columns", "{reader} {label}"]) == 0
    readers = json.loads((tmp_path / "p_evaluation/metrics.json").read_text())["readers"]
    assert readers["readers"] == ["Kim"]
    found = [(pair["label"], pair["sensitivity"]["value"]) for pair in readers["readers_against_labels"]]
    assert found == [("Normal", 0.5), ("ETT - Normal", 1.0)]


@pytest.mark.parametrize(
    ("pattern", "table", "said"),
    [
        ("{label}_{reader}", "id,x\n1,1\n", "has no column as --reader-columns '{label}_{reader}' says, such as 'x_A'"),
        ("{label} by {reader}", "id,x,x by A\n1,1,yes\n", "column 'x by A': 'yes' is not 0 or 1"),
    ],
)
def test_wrong_readers_columns(tmp_path: Path, pattern: str, table: str, said: str) -> None:
    (tmp_path / "l.csv").write_text(table)
    (tmp_path / "p.csv").write_text("id,x\n1,0.9\n")
    with pytest.raises(catheters.errors.UserError) as error:
        main(
            ["--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "l.csv"), "--reader-columns", pattern]
        )
    assert said in str(error.value)
    assert not (tmp_path / "p_evaluation").exists()


def test_a_pattern_without_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["run", "--reader-columns", "{label}"])
    assert "{label} and {reader} once each, as in '{label} [{reader}]'" in capsys.readouterr().err
