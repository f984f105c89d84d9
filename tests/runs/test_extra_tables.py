"""`extra_tables`: further label tables train, are never validated on, and leak nothing into a fold."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.config.settings import Settings
from catheters.data.samples import JoinedRadiographs
from catheters.errors import UserError
from catheters.runs.data_checks import num_training_images
from catheters.runs.datasets import all_samples, create_train_loader, load_data, split_samples
from catheters.runs.extra_tables import with_extra_tables
from catheters.runs.preproc import preproc
from catheters.runs.run import train_run
from catheters.runs.run_data import RunData
from catheters.synthetic import generate_sample
from tests.conftest import run_script

OTHER_LABELS = {"CVC - Normal": "line_ok", "ETT - Normal": "tube_ok"}  # label -> the other hospital's column


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another hospital: 30 images with names, columns and values of its own, which tell two labels."""
    folder = tmp_path_factory.mktemp("other")
    generate_sample(folder, num_images=30, num_test_images=4, image_size=64, seed=5, num_workers=1)
    frame = pd.read_csv(folder / "train.csv", dtype=str)
    table = pd.DataFrame({"image": frame["StudyInstanceUID"], "person": "B" + frame["PatientID"]})
    for label, column in OTHER_LABELS.items():
        table[column] = frame[label].map({"0": "no", "1": "yes"})
    table.loc[::4, "tube_ok"] = "?"
    table.to_csv(folder / "labels.csv", index=False)
    return folder


def of_other(folder: Path, **changes: Any) -> dict[str, Any]:
    """That hospital's table, as a config names it."""
    return {
        "cache_name": "other",
        "dataset_folder": str(folder),
        "label_table": "labels.csv",
        "uid_column": "image",
        "patient_column": "person",
        "path_pattern": "train/{uid}.jpg",
        "derived_labels": {label: (column, "yes") for label, column in OTHER_LABELS.items()},
        "label_values": {"?": "unknown"},
        **changes,
    }


@pytest.fixture
def both(settings: Settings, other_folder: Path) -> Settings:
    """Settings of a run that learns from the other hospital too, with both caches built."""
    settings = dataclasses.replace(settings, extra_tables=(of_other(other_folder),))
    preproc(settings)
    return settings


@pytest.fixture
def changed_copy(settings: Settings, other_folder: Path, tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a copy of the other hospital whose table and images a test may change, with its cache built."""

    def create(change: Callable[[pd.DataFrame, Path], None], **changes: Any) -> Settings:
        folder = tmp_path / "changed"
        shutil.copytree(other_folder, folder)
        frame = pd.read_csv(folder / "labels.csv", dtype=str)
        change(frame, folder)
        frame.to_csv(folder / "labels.csv", index=False)
        changed = dataclasses.replace(settings, extra_tables=(of_other(folder, **changes),))
        preproc(changed)
        return changed

    return create


def loaded(settings: Settings) -> RunData:
    return with_extra_tables(settings, load_data(settings))


def pixels_of(samples: Any) -> set[bytes]:
    return {samples[0, position]["images"].numpy().tobytes() for position in range(len(samples))}


def test_its_images_train_and_are_never_validated_on(both: Settings, other_folder: Path) -> None:
    """With the labels that its table tells; all others, and those of which it says "?", are unknown."""
    plain = dataclasses.replace(both, train_transforms=())
    data = loaded(plain)
    (other,) = data.extra
    frame = pd.read_csv(other_folder / "labels.csv", dtype=str)
    for column, label in enumerate(plain.label_columns):
        expected = np.full(30, np.nan)
        if label in OTHER_LABELS:
            expected = frame[OTHER_LABELS[label]].map({"no": 0.0, "yes": 1.0}).to_numpy(dtype=float)
        np.testing.assert_array_equal(other.targets[:, column], expected)
    for fold in (0, 1):
        train, valid = split_samples(plain, data, fold)
        own_train, own_valid = split_samples(plain, dataclasses.replace(data, extra=()), fold)
        assert isinstance(train, JoinedRadiographs)
        assert len(train) == len(own_train) + 30 == int((data.folds != fold).sum()) + 30
        assert pixels_of(valid) == pixels_of(own_valid) and not pixels_of(valid) & pixels_of(train)
        for position in range(len(own_train)):
            sample, own = train[0, position], own_train[0, position]
            assert torch.equal(sample["images"], own["images"]) and torch.equal(sample["targets"], own["targets"])
            assert bool((sample["labels_known"] == 1).all())
        of_other = [train[0, position] for position in range(len(own_train), len(train))]
        known = torch.stack([sample["labels_known"] for sample in of_other]).numpy()
        np.testing.assert_array_equal(known, ~np.isnan(other.targets))
        targets = torch.stack([sample["targets"] for sample in of_other]).numpy()
        np.testing.assert_array_equal(targets, np.nan_to_num(other.targets))
    assert len(all_samples(plain, data)) == 70
    assert num_training_images(plain, data) == min(int((data.folds != fold).sum()) for fold in (0, 1)) + 30


def test_each_image_is_in_an_epoch_once(both: Settings) -> None:
    """A batch has images of both tables, under names of their own."""
    settings = dataclasses.replace(both, train_transforms=(), batch_size=10)
    data = loaded(settings)
    samples = all_samples(settings, data)
    loader = create_train_loader(settings, samples, torch.device("cpu"))
    batches = list(loader)
    seen = [image.numpy().tobytes() for batch in batches for image in batch.images]
    assert len(seen) == 70 and set(seen) == pixels_of(samples)
    assert all(batch.labels_known is not None and batch.labels_known.shape == (10, 11) for batch in batches)
    assert any(0 < int((batch.labels_known == 1).all(dim=1).sum()) < 10 for batch in batches)


def test_what_a_shared_patient_shows_never_reaches_the_model_that_validates_it(
    settings: Settings, changed_copy: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the id, or by an image with the same pixels under other ids: the patient's every image stays away."""
    table = pd.read_csv(Path(settings.dataset_folder) / "train.csv", dtype=str)
    known_patient = str(table["PatientID"].iloc[0])
    of_another = table[table["PatientID"] != known_patient].iloc[0]

    def change(frame: pd.DataFrame, folder: Path) -> None:
        frame.loc[:1, "person"] = known_patient
        frame.loc[2:4, "person"] = "somebody"  # whose third image is one of the label table's
        shutil.copy(
            Path(settings.dataset_folder) / f"train/{of_another['StudyInstanceUID']}.jpg",
            folder / f"train/{frame.loc[4, 'image']}.jpg",
        )

    changed = dataclasses.replace(changed_copy(change), train_transforms=())
    data = loaded(changed)
    fold_of = dict(zip(data.patient_ids.tolist(), data.folds.tolist(), strict=True))
    (other,) = data.extra
    expected = [fold_of[known_patient]] * 2 + [fold_of[str(of_another["PatientID"])]] * 3 + [-1] * 25
    assert other.folds.tolist() == expected
    for fold in (0, 1):
        train, valid = split_samples(changed, data, fold)
        assert len(train) == int((data.folds != fold).sum()) + sum(of_image != fold for of_image in expected)
        assert not pixels_of(train) & pixels_of(valid)
    said = capsys.readouterr()
    assert "extra_tables[0] (other): 5 images of 2 patients of the label table, " in said.out
    assert "1 image with the pixels of one of the label table, " in said.err


@pytest.mark.slow
def test_a_patient_is_known_again_over_several_tables(settings: Settings, other_folder: Path, tmp_path: Path) -> None:
    """X has an image with the pixels of the label table's in one table, another image in the next, and so on."""
    own = load_data_of(settings)
    uid, fold = str(own.uids[own.folds == 1][0]), 1
    sources = sorted((other_folder / "train").iterdir())
    tables = []
    for number, rows in enumerate(
        ([("a", "X"), ("b", "Y")], [("c", "X"), ("d", "Z")], [(uid, "W"), ("e", "W"), ("b", "V")], [("f", "V")])
    ):
        folder = tmp_path / f"table{number}"
        (folder / "train").mkdir(parents=True)
        for image, _ in rows:
            equal = Path(settings.dataset_folder) / f"train/{uid}.jpg"
            shutil.copy(equal if image == "a" else sources.pop(), folder / f"train/{image}.jpg")
        frame = pd.DataFrame(rows, columns=["StudyInstanceUID", "PatientID"]).assign(**{"CVC - Normal": "1"})
        frame.to_csv(folder / "train.csv", index=False)
        tables.append({"cache_name": f"table{number}", "dataset_folder": str(folder)})
    joined = dataclasses.replace(settings, extra_tables=tuple(tables))
    preproc(joined)
    # X by the pixels of a; W by the id of its first image; Y and V are one by image b, and nobody of the label table.
    assert [of.folds.tolist() for of in loaded(joined).extra] == [[fold, -1], [fold, -1], [fold, fold, -1], [-1]]
    tables[0]["shares_ids"] = tables[2]["shares_ids"] = False
    own_ids = dataclasses.replace(settings, extra_tables=tuple(tables))
    assert [of.folds.tolist() for of in loaded(own_ids).extra] == [[fold, -1], [-1, -1], [-1, -1, -1], [-1]]


def test_a_patient_of_two_folds_is_left_out(
    settings: Settings, changed_copy: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    own = load_data_of(settings)
    names = {fold: own.uids[own.folds == fold][0] for fold in (0, 1)}
    patient = str(own.patient_ids[own.folds == 0][0])

    def change(frame: pd.DataFrame, folder: Path) -> None:
        frame.loc[0, "person"] = frame.loc[1, "person"] = patient
        shutil.copy(
            Path(settings.dataset_folder) / f"train/{names[1]}.jpg", folder / f"train/{frame.loc[1, 'image']}.jpg"
        )

    changed = changed_copy(change)
    data = loaded(changed)
    assert data.extra[0].folds[:3].tolist() == [-2, -2, -1]
    assert len(split_samples(changed, data, 0)[0]) == int((data.folds != 0).sum()) + 28
    said = capsys.readouterr().err
    assert "left out everywhere: 2 images, " in said and "say 'shares_ids': False" in said


def load_data_of(settings: Settings) -> RunData:
    preproc(settings)
    return load_data(settings)


def test_similar_patient_ids_are_told_once(
    settings: Settings, other_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of one table when it is read; those of two, and no others, when they come together."""
    own = pd.read_csv(Path(settings.dataset_folder) / "train.csv", dtype=str)
    own["PatientID"] = ["12", "0012", "7", *(f"a{row}" for row in range(3, len(own)))]
    other = pd.read_csv(other_folder / "labels.csv", dtype=str).assign(person=["007", *(f"b{n}" for n in range(29))])
    own.to_csv(tmp_path / "own.csv", index=False)
    other.to_csv(tmp_path / "other.csv", index=False)
    others = of_other(other_folder, label_table=str(tmp_path / "other.csv"))
    changed = dataclasses.replace(settings, label_table=str(tmp_path / "own.csv"), extra_tables=(others,))
    preproc(changed)
    capsys.readouterr()
    loaded(changed)
    said = "".join(capsys.readouterr())
    assert said.count("1 group of similar patient ids") == 2
    assert "own.csv: column 'PatientID'" in said and "'12' (1 rows) and '0012' (1 rows)" in said
    assert "label_table and extra_tables: 1 group" in said and "'7' (1 rows) and '007' (1 rows)" in said


@pytest.mark.slow
def test_an_audit_looks_at_every_table(both: Settings, write_config: Any) -> None:
    run = run_script("preproc_npy.py", "--config", write_config(both), "--audit")
    assert run.returncode == 0, run.stderr
    for name in (both.cache_name, "other"):
        assert (Path(both.cache_folder) / f"{name}_audit" / "audit.html").is_file()
        assert f"{name}_audit: audit.csv, audit.html" in run.stdout


def test_weights(both: Settings, changed_copy: Callable[..., Settings]) -> None:
    """A table's weight times the image's own; tables without weights count 1."""
    data = loaded(both)
    assert not data.numbers and not data.extra[0].numbers
    weighted = loaded(dataclasses.replace(both, extra_tables=({**both.extra_tables[0], "weight": 0.25},)))
    assert weighted.numbers["weight"].tolist() == [1.0] * 40
    assert weighted.extra[0].numbers["weight"].tolist() == [0.25] * 30

    def change(frame: pd.DataFrame, folder: Path) -> None:
        frame["trust"] = [str(row % 3) for row in range(30)]

    own = loaded(changed_copy(change, weight_column="trust", weight=0.5))
    assert own.extra[0].numbers["weight"].tolist() == [0.5 * (row % 3) for row in range(30)]
    assert own.numbers["weight"].tolist() == [1.0] * 40
    assert len({found.fingerprint for found in (data, weighted, own, load_data(both))}) == 4


@pytest.mark.slow
def test_lines_of_both_tables(settings: Settings, other_folder: Path, tmp_path: Path) -> None:
    """Drawn in a table of its own, or unknown but where labels say that there are none."""
    settings = dataclasses.replace(
        settings, lines="auxiliary", line_stride=2, annotation_table="train_annotations.csv", epochs=1
    )
    with_lines = {"label_table": "train.csv", "uid_column": "StudyInstanceUID", "patient_column": "PatientID"}
    rest = {"cache_name": "other", "dataset_folder": str(other_folder)}
    without = dataclasses.replace(settings, extra_tables=({**rest, **with_lines},))
    preproc(without)
    drawn = dataclasses.replace(
        settings, extra_tables=({**rest, **with_lines, "annotation_table": "train_annotations.csv"},)
    )
    of_drawn, of_without = loaded(drawn).extra[0].lines, loaded(without).extra[0].lines
    assert of_drawn is not None and of_without is not None
    assert of_drawn.is_known.all() and len(of_drawn.line_types) > 10
    assert not len(of_without.line_types)
    labels = loaded(without).extra[0].labels
    for number, of_type in enumerate(settings.device_types.values()):
        columns = [settings.label_columns.index(label) for label in of_type]
        np.testing.assert_array_equal(of_without.is_known[:, number], (labels[:, columns] == 0).all(axis=1))
    data = loaded(drawn)
    loader = create_train_loader(drawn, all_samples(drawn, data), torch.device("cpu"))
    tips = {tuple(batch.tips.shape[1:]) for batch in loader if batch.tips is not None}
    assert len(tips) == 1
    assert data.lines is not None
    ((num_tips, _),) = tips
    assert num_tips == max(data.lines.max_lines, of_drawn.max_lines)
    train_run(drawn, fresh=False)


@pytest.mark.slow
def test_a_run_with_scripts(settings: Settings, other_folder: Path, write_config: Any) -> None:
    """Prepared, trained and resumed by the scripts; predictions are of the label table alone."""
    settings = dataclasses.replace(settings, extra_tables=(of_other(other_folder),), epochs=1)
    config = write_config(settings)
    prepared = run_script("preproc_npy.py", "--config", config)
    assert prepared.returncode == 0, prepared.stderr
    assert sorted(file.name for file in Path(settings.cache_folder).glob("*.npy")) == ["other_32.npy", "tiny_32.npy"]
    trained = run_script("train.py", "--config", config)
    assert trained.returncode == 0, trained.stderr
    assert "extra_tables[0] (other): 30 images of " in trained.stdout and "; 9 labels unknown" in trained.stdout
    predicted = pd.read_csv(settings.run_folder / "predictions.csv", dtype=str)
    own = pd.read_csv(Path(settings.dataset_folder) / "train.csv", dtype=str)
    assert sorted(predicted["StudyInstanceUID"]) == sorted(own["StudyInstanceUID"])
    again = run_script("train.py", "--config", config, "epochs=2")
    assert again.returncode == 0, again.stderr
    without = run_script("train.py", "--config", config, "extra_tables=[]", "epochs=2")
    assert without.returncode == 2 and "extra_tables was [{" in without.stderr


@pytest.mark.slow
def test_it_is_learnt_from_as_a_part_of_one_table_is(settings: Settings, tmp_path: Path) -> None:
    """Half of a table as an extra one gives the model of the whole table, where no order or statistic differs."""
    folder = Path(settings.dataset_folder)
    frame = pd.read_csv(folder / "train.csv", dtype=str)
    patients = frame["PatientID"].unique()
    is_extra = frame["PatientID"].isin(patients[::2])
    for name, part in (
        ("own", frame[~is_extra]),
        ("more", frame[is_extra]),
        ("all", pd.concat([frame[~is_extra], frame[is_extra]])),
    ):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    shared = {"all_data": True, "epochs": 2, "grey_mean": 0.45, "grey_std": 0.2, "backbone_model": "test_convnext"}
    whole = dataclasses.replace(
        settings, **shared, label_table=str(tmp_path / "all.csv"), cache_name="all", run_name="whole"
    )
    more = {"cache_name": "more", "dataset_folder": str(folder), "label_table": str(tmp_path / "more.csv")}
    split = dataclasses.replace(
        settings,
        **shared,
        label_table=str(tmp_path / "own.csv"),
        cache_name="own",
        run_name="split",
        extra_tables=(more,),
    )
    weights = []
    for run in (whole, split):
        preproc(run)
        train_run(run, fresh=False)
        weights.append(torch.load(run.run_folder / "seed0/final.pt", weights_only=True)["model"])
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_folder": "nowhere"}, "nowhere: no such folder"),
        ({"derived_labels": {}, "label_values": {}}, r"extra_tables\[0\]: .*labels.csv tells no label of any image"),
        ({"patient_column": "persn"}, "'persn' is not a column; did you mean 'person'"),
        ({"path_pattern": "images/{uid}.png"}, "nor could any other of the 30 X-rays be read"),
    ],
)
def test_wrong_tables(settings: Settings, other_folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        preproc(dataclasses.replace(settings, extra_tables=(of_other(other_folder, **changes),)))


def test_a_label_under_nearly_its_name(settings: Settings, changed_copy: Callable[..., Settings]) -> None:
    """Is no label that the table lacks."""

    def change(frame: pd.DataFrame, folder: Path) -> None:
        frame["NGT - Normall"] = "1"

    with pytest.raises(UserError, match="'NGT - Normal' is not a column; did you mean 'NGT - Normall'"):
        changed_copy(change)


def test_a_column_that_a_label_is_derived_from_is_no_misspelling(
    settings: Settings, changed_copy: Callable[..., Settings]
) -> None:
    def change(frame: pd.DataFrame, folder: Path) -> None:
        frame["CVC - normal"] = "1"

    data = loaded(changed_copy(change, derived_labels={"CVC - Normal": ("CVC - normal", "1")}))
    assert (data.extra[0].targets[:, settings.label_columns.index("CVC - Normal")] == 1).all()


def test_findings_that_nobody_looked_for(settings: Settings, changed_copy: Callable[..., Settings]) -> None:
    """A label that no list of a table names is unknown there, not absent."""

    def change(frame: pd.DataFrame, folder: Path) -> None:
        frame["found"] = ["CVC - Normal|Effusion" if row % 2 else "none" for row in range(30)]

    data = loaded(changed_copy(change, derived_labels={}, label_values={}, findings_column="found"))
    targets = data.extra[0].targets
    column = settings.label_columns.index("CVC - Normal")
    assert targets[:, column].tolist() == [row % 2 for row in range(30)]
    assert np.isnan(np.delete(targets, column, axis=1)).all()


def test_a_cache_that_is_not_built(settings: Settings, other_folder: Path) -> None:
    preproc(settings)
    missing = dataclasses.replace(settings, extra_tables=(of_other(other_folder),))
    with pytest.raises(UserError, match=r"other_32\.npy.*preproc_npy\.py"):
        loaded(missing)
