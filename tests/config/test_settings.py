"""Settings: strict, frozen, and clear about every mistake."""

import dataclasses
import pickle
from pathlib import Path

import pytest

from catheters.config.groups import describe_settings
from catheters.config.loading import (
    load_settings,
    settings_from_json,
    settings_to_json,
    settings_warnings,
)
from catheters.config.settings import Settings
from catheters.errors import SettingsError
from catheters.labels import RANZCR_HEADS


def config(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.py"
    file.write_text("from catheters import Settings\n" + text)
    return file


def test_overrides_are_parsed_by_type(tmp_path: Path) -> None:
    file = config(tmp_path, "settings = Settings(batch_size=3, folds=[1, 0])")
    settings = load_settings(
        file, ["image_size=256", "folds=[0,2]", "pretrained=weights.pth", "init_lr=1", "pos_weight={'CVC - Normal': 2}"]
    )
    assert settings.batch_size == 3
    assert settings.image_size == 256
    assert settings.folds == (0, 2)
    assert settings.pretrained == "weights.pth"
    assert settings.init_lr == 1.0
    assert isinstance(settings.init_lr, float)
    assert settings.pos_weight == {"CVC - Normal": 2.0}
    assert settings.run_name == "mine"
    assert load_settings(file, ["run_name=7"]).run_name == "7"
    assert load_settings(file, ["pretrained=False"]).pretrained is False
    assert load_settings(file, ["pretrained=false"]).pretrained is False
    assert load_settings(file, ["run_name=None"]).run_name == "mine"


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().batch_size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("bakbone_model=x", ["'bakbone_model' is not a setting", "did you mean 'backbone_model'?"]),
        ("zzz=1", ["'zzz' is not a setting; there are ", " for some; --help explains all"]),
        ("image_size", ["'image_size' is not name=value"]),
        ("image_size=big", ["image_size: 'big' came", "integer or a list is expected"]),
        ("image_size=2.5", ["image_size: 2.5 came"]),
        ("batch_size=0", ["batch_size: 0 came, a whole number of at least 1, or 'auto', is expected (Images in"]),
        ("batch_size=True", ["batch_size: True came"]),
        ("init_lr=-1", ["init_lr: -1 came, a number above 0 is expected (Learning rate"]),
        ("use_amp=1", ["use_amp: 1 came, True or False is expected"]),
        ("channels_last=auto", ["channels_last: 'auto' came, True or False or None is expected"]),
        ("amp_dtype=float8", ["'float16' or 'bfloat16' is expected"]),
        ("pretrained=3", ["pretrained: 3 came, True or False or a valid string is expected"]),
        ("folds=3", ["folds: 3 came", "list"]),
        ("folds=[0,0]", ["names a fold twice"]),
        ("folds=[5]", ["num_folds=5, so at most 4"]),
        ("folds=[-1]", ["folds: -1 came, a whole number of at least 0 is expected (Folds to train"]),
        ("folds=[]", ["folds: [] came, a list of at least 1 item or None is expected (Folds to train"]),
        (
            "soft_label_threshold=50",
            ["soft_label_threshold: 50 came, a number above 0 and at most 1, or None, is expected (With"],
        ),
        ("debug_fraction=0", ["debug_fraction: 0 came, a number above 0 and at most 1 is expected (Share of"]),
        ("drop_rate=1", ["drop_rate: 1 came, a number of at least 0 and below 1 is expected (Dropout"]),
        ("grey_mean=2", ["grey_mean: 2 came, a number from 0 to 1, or None, is expected ("]),
        ("image_size=1", ["image_size: 1 came, a whole number from 16 to 8192, or a list, is expected ("]),
        ("image_size=[64, 9]", ["image_size: 9 came, a whole number from 16 to 8192 is expected (Height"]),
        ("loss_weights={'lines': 0}", ["loss_weights: 0 came, a number above 0 is expected ({term"]),
        ("label_smoothing={'x': 1}", ["label_smoothing: 1 came, a number of at least 0 and below 1 is expected ("]),
        ("exclusive={'x': []}", ["exclusive: [] came, a list of at least 1 item is expected ("]),
        ("folds=[]", ["folds: [] came"]),
        (
            "pos_weight={'CVC - Normall': 2}",
            ["pos_weight: 'CVC - Normall' is not one of label_columns", "'CVC - Normal'"],
        ),
        ("derived_labels={'x': ('a', 'b')}", ["derived_labels: 'x' is not one of label_columns"]),
        ("label_columns=['a','a']", ["names a label twice"]),
        ("min_lr=1", ["min_lr=1.0 is above the peak learning rate"]),
        (
            "device=gpu",
            ["device: 'gpu' came, auto (the first NVIDIA or AMD GPU, else the CPU), cpu, cuda, "],
        ),
        ("device=mps:0", ["device: 'mps:0' came", "xpu:<index> or mps (Apple) is expected"]),
        ("run_name=../x", ["run_name: '../x' came", "Name of the run folder"]),
        ("path_pattern=train/{uid", ["path_pattern='train/{uid': a curly bracket without its other one"]),
        ("path_pattern=train/x.jpg", ["path_pattern='train/x.jpg': {uid} or a {column}"]),
        ("path_pattern={}.jpg", ["path_pattern='{}.jpg': {uid} or"]),
        ("label_columns=['fold','a']", ["'fold' is a column of its own in predictions.csv"]),
        ("label_columns=['StudyInstanceUID']", ["'StudyInstanceUID' is a column of its own"]),
        ("uid_column=patient", ["'patient' is a column of its own"]),
        (
            "heads={'ETT': ['ETT - Abnormal']}",
            ["heads: 'ETT - Borderline' stands in 0 of them; every label"],
        ),
        (
            "heads={'a': ['ETT - Normall']}",
            ["heads: 'ETT - Normall' is not one of label_columns; did you"],
        ),
        ("resume=best.pt", ["'resume' is not a setting: the same command again resumes where it stopped"]),
        ("epochs=30", ["epochs=30, but the schedule ends after warmup_epochs + cosine_epochs = 21; raise cosine"]),
        (
            "schedule=cosin",
            ["schedule: 'cosin' came, 'cosine', 'cosine_restarts', 'one_cycle', 'constant' or"],
        ),
        ("schedule=constant", ["schedule='constant' needs epochs, the length of the run"]),
        ("seeds=[1,2]", ["seeds=[1, 2] needs all_data=True; folds are trained with the one seed"]),
        ("ema_decay=1", ["ema_decay: 1 came, a number above 0 and below 1, or None, is expected ("]),
        ("path_pattern=a/{uid}*.png", ["path_pattern='a/{uid}*.png': * may stand in its folders, if they have no"]),
        ("path_pattern=*/{view}/{uid}.png", ["* may stand in its folders, if they have no {column} in them"]),
        ("path_pattern=export/*.dcm", ["{uid} or a {column}", "a glob without them needs dicom_id"]),
        ("patient_pattern=/patient(", ["patient_pattern='/patient(': no regular expression (missing )"]),
        (
            "patient_pattern=/patient",
            ["patient_pattern='/patient': has 0 groups; one, around the patient, is expected"],
        ),
        ("patient_pattern=(a)(b)", ["patient_pattern='(a)(b)': has 2 groups"]),
        ("label_values={'-1': 2}", ["label_values: 2 came, 0, 1 or 'unknown' is expected"]),
        ("label_values={-1: 1}", ["label_values: -1 came, a valid string is expected"]),
        ("label_values={'1.0': 0}", ["label_values={'1.0': 0}: '1.0' means 1 already"]),
        ("label_values={'-1': 0, '-1.0': 1}", ["'-1.0' means 0 already"]),
        ("label_values={' no': 0, 'no': 1}", ["'no' means 0 already"]),
        (
            "measurements={'x': ('ETT tip', 'carina')}",
            ["measurements: ('ETT tip', 'carina') came, (str, str, 'vertical' or 'horizontal' or 'distance') is exp"],
        ),
        (
            "measurements={'x': ('ETT tip', 'carina', 'vertical', 'mm')}",
            ["'vertical', 'mm') came, (str, str, 'vertical' or 'horizontal' or 'distance') is expected ("],
        ),
        (
            "train_transforms=[['HorizontalFlip']]",
            ["train_transforms: ['HorizontalFlip'] came, (str, {str: any}) is ex"],
        ),
        ("derived_labels={'x': ('a',)}", ["derived_labels: ('a',) came, (str, str) is expected"]),
        ("image_size=[512]", ["image_size: [512] came, int or (int, int) is expected"]),
        ("keep_rows={'view': 1}", ["keep_rows: 1 came, a valid string or a list is expected"]),
        ("dicom_id=StudyInstanceUid", ["dicom_id: 'StudyInstanceUid' is not a DICOM keyword; did you mean 'StudyInst"]),
        ("dicom_id=zzz", ["dicom_id: 'zzz' is not a DICOM keyword; there are: StudyInstanceUID, SeriesInstanceUID"]),
        ("dicom_id=''", ["dicom_id: '' is not a DICOM keyword"]),
        ("dicom_id=SOPInstanceUID", ["path_pattern='train/{uid}.jpg': with dicom_id a glob of the DICOM files is"]),
        ("num_folds=200", ["num_folds: 200 came, a whole number from 2 to 100 is expected (Number"]),
        ("config.py", ["'config.py' is not name=value; a settings file is given with --config config.py"]),
    ],
)
def test_wrong_override_is_one_clear_line(tmp_path: Path, override: str, parts: list[str]) -> None:
    file = config(tmp_path, "settings = Settings()")
    with pytest.raises(SettingsError) as error:
        load_settings(file, [override])
    message = str(error.value)
    assert message.startswith("command line: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "settings = Settings(\n    batch_size=4,\n    bach_size=3,\n)",
            "mine.py:4: 'bach_size' is not a setting; did you",
        ),
        (
            "settings = Settings(\n    batch_size='4',\n)",
            "mine.py:3: batch_size: '4' came, valid integer or 'auto' is expected",
        ),
        ("settings = Settings(folds=[7])", "mine.py: folds=[7]: num_folds=5"),
        ("settings = Settings(warmup_epochs=0, cosine_epochs=0)", "nothing to train"),
        ("x = 1", "no `settings = Settings(...)` in it"),
        ("settings = Settings(batch_size=n)", "mine.py:2: NameError: name 'n' is not defined"),
        ("settings = Settings(", "mine.py:2: '(' was never closed"),
        ("import sys\nsys.exit(0)\nsettings = Settings()", "mine.py:3: SystemExit"),
        (
            "import numpy as np\nsettings = Settings(train_transforms=[('Affine', {'rotate': np.int64(3)})])",
            "train_transforms: Unable to serialize unknown type: <class 'numpy.int64'>; plain Python numbers",
        ),
    ],
)
def test_wrong_config_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=r"mine\.py") as error:
        load_settings(config(tmp_path, text))
    assert message in str(error.value).replace("a valid", "valid")


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such config file"):
        load_settings(tmp_path / "absent.py")


def test_json_round_trip() -> None:
    settings = Settings(
        pos_weight={"CVC - Normal": 2.0},
        folds=(1,),
        derived_labels={"CVC - Normal": ("c", "v")},
        patient_pattern=r"/patient(\d+)/",
        label_values={"": 0, "-1.0": 1},
    )
    assert settings_from_json(settings_to_json(settings), "here") == settings
    assert settings_from_json(settings_to_json(settings), "here").folds == (1,)
    assert settings_to_json(settings_from_json(settings_to_json(settings), "here")) == settings_to_json(settings)
    with pytest.raises(SettingsError, match=r"^here: "):
        settings_from_json("{", "here")


def test_a_wrong_choice_names_the_one_that_was_meant() -> None:
    """With the first sentence of what the setting is for; the rest of it is in `--help`."""
    with pytest.raises(SettingsError) as error:
        load_settings(None, ["lines=poled"])
    assert str(error.value) == (
        "command line: lines: 'poled' came, 'auxiliary', 'pooled' or 'input' or None is expected; did you mean "
        "'pooled'? (Learn where each line and its tip lie from `annotation_table`.)"
    )
    with pytest.raises(SettingsError) as error:
        load_settings(None, ["batch_size=autoo"])
    assert "came, a valid integer or 'auto' is expected; did you mean 'auto'? (Images in a" in str(error.value)
    with pytest.raises(SettingsError) as error:
        load_settings(None, ["line_stride=3"])
    assert "line_stride: 3 came, 2, 4 or 8 is expected (Pixels of the image" in str(error.value)


def test_a_mistake_in_python_is_one_line() -> None:
    """In a script or notebook, where no file is read."""
    with pytest.raises(SettingsError, match=r"^'image_sise' is not a setting; did you mean 'image_size'\?$"):
        Settings(image_sise=512)  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match=r"^image_size: 'big' came, .* is expected \(Height and width"):
        Settings(image_size="big")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"^one_cycle goes up"):
        dataclasses.replace(Settings(schedule="one_cycle", epochs=9, warmup_epochs=3), epochs=2)
    with pytest.raises(SettingsError, match="settings are given by name") as error:
        Settings("config.py")  # type: ignore[call-arg]
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # from another process


def test_a_config_whose_name_cannot_be_a_runs(tmp_path: Path) -> None:
    file = tmp_path / "my config.py"
    file.write_text("from catheters import Settings\nsettings = Settings()\n")
    with pytest.raises(SettingsError, match=r"my config\.py: its name is that of the run folder, which has letters"):
        load_settings(file)
    assert load_settings(file, ["run_name=mine"]).run_name == "mine"


def test_every_setting_is_explained() -> None:
    text = describe_settings()
    for field in dataclasses.fields(Settings):
        assert f"  {field.name} = " in text
    words = " ".join(text.split())
    for label in Settings().label_columns:
        assert label in words


def test_settings_without_effect_are_named() -> None:
    assert settings_warnings(Settings()) == []
    assert settings_warnings(Settings(warmup_epochs=0)) == []
    warnings = settings_warnings(Settings(warmup_epochs=0, warmup_multiplier=3.0, use_amp=False, amp_dtype="bfloat16"))
    assert warnings == [
        "warmup_multiplier=3.0 has no effect: warmup_epochs=0",
        "amp_dtype='bfloat16' has no effect: use_amp=False",
    ]


def test_settings_of_stages_without_effect_are_named() -> None:
    """What has an effect in one stage is meant for it; what a stage itself says has to have one there."""
    base = Settings(soft_weight=0.3, warmup_epochs=0, epochs=2, cosine_epochs=2, run_name="x")
    assert settings_warnings(dataclasses.replace(base, stages=[{}, {"teacher": "y"}])) == []
    assert settings_warnings(dataclasses.replace(base, stages=[{}, {}])) == [
        "soft_weight=0.3 has no effect: teacher=None"
    ]
    stages = [{"soft_weight": 0.2}, {"teacher": "y", "plateau_patience": 9}, {"teacher": "y", "epochs": 1}]
    assert settings_warnings(dataclasses.replace(base, stages=stages)) == [
        "soft_weight=0.2 has no effect: teacher=None",
        "plateau_patience=9 has no effect: schedule='cosine'",
        "epochs=1 stops a schedule of 2 epochs early (warmup_epochs + cosine_epochs); cosine_epochs=1 makes it a "
        "whole one",
    ]


def test_settings_of_lines_without_effect_are_named() -> None:
    tables = {"landmark_table": "landmarks.csv", "spacing_table": "spacing.csv"}
    settings = Settings(heads=dict(RANZCR_HEADS), line_stride=2, **tables)
    assert settings_warnings(settings) == [
        f"heads={settings.heads!r} has no effect: classifier='linear' and lines=None",
        "landmark_table='landmarks.csv' has no effect: lines=None",
        "line_stride=2 has no effect: lines=None",
        "spacing_table='spacing.csv' has no effect: lines=None",
    ]
    learning = dataclasses.replace(settings, lines="auxiliary", annotation_table="train_annotations.csv")
    assert settings_warnings(learning) == []
    seeing = dataclasses.replace(settings, lines="input", first_stage="saved_models/first")
    assert [text.split("=")[0] for text in settings_warnings(seeing)] == [
        "landmark_table",
        "line_stride",
        "spacing_table",
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule=one_cycle", "epochs=3", "warmup_epochs=3"], "goes up in warmup_epochs=3 and down until epochs=3"),
        (
            ["schedule=one_cycle", "epochs=3", "warmup_epochs=0"],
            "one_cycle goes up in warmup_epochs=0 and down until",
        ),
        (["path_pattern=/abs/t*/{uid}.jpg"], "with * it is relative to dataset_folder, and ** is the whole name"),
        (["path_pattern=t**x/{uid}.jpg"], "with * it is relative to dataset_folder, and ** is the whole name"),
        (["dicom_id=SOPInstanceUID", "path_pattern=export/**"], "with dicom_id a glob of the DICOM files is expected"),
        (["dicom_id=SOPInstanceUID", "path_pattern="], "with dicom_id a glob of the DICOM files is expected"),
        (["dicom_id=SOPInstanceUID", "path_pattern=/export/*"], "with dicom_id it is relative to dataset_folder"),
        (["dicom_id=SOPInstanceUID", "path_pattern=export/**.dcm"], "** is the whole name of a folder"),
        (["all_data=True", "seeds=[1,1]"], "seeds=[1, 1] names a seed twice"),
        (
            ["schedule=plateau", "epochs=2", "all_data=True"],
            "follows the validation's macro AUC, and all_data=True",
        ),
        (
            ["compile_mode=reduce-overhead", "accumulation_steps=2"],
            "has CUDA graphs, which write over gradients that wait for further batches (accumulation_steps=2)",
        ),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(config(tmp_path, "settings = Settings()"), overrides)
    assert message in str(error.value)


def test_a_schedule_that_stops_early_is_named() -> None:
    assert settings_warnings(Settings(epochs=1)) == [
        "epochs=1 stops a schedule of 21 epochs early (warmup_epochs + cosine_epochs)"
    ]
    assert settings_warnings(Settings(epochs=4)) == [
        "epochs=4 stops a schedule of 21 epochs early (warmup_epochs + cosine_epochs); cosine_epochs=3 makes it a "
        "whole one"
    ]
    assert settings_warnings(Settings(cosine_epochs=3)) == settings_warnings(Settings(epochs=21)) == []
    constant = Settings(schedule="constant", epochs=2, warmup_epochs=3, min_lr=0.0)
    assert settings_warnings(constant) == [
        "min_lr=0.0 has no effect: schedule='constant'",
        "epochs=2 stops a schedule of 3 epochs early (warmup_epochs)",
    ]
    restarts = {"schedule": "cosine_restarts", "warmup_epochs": 0, "warmup_multiplier": 10.0}
    assert settings_warnings(Settings(**restarts, epochs=15, restart_epochs=16)) == []
    assert settings_warnings(Settings(**restarts, epochs=11, restart_epochs=10)) == [
        "epochs=11 stops in the first half of a cosine of restart_epochs=10, at a high learning rate"
    ]
    plateau = Settings(schedule="plateau", epochs=30, early_stop=3, plateau_patience=3)
    assert settings_warnings(plateau) == [
        "early_stop=3 stops a fold before plateau_patience=3 lowers the learning rate"
    ]
    derived = Settings(label_columns=("AP",), derived_labels={"AP": ("view", "ap")}, label_values={"-1": 0})
    assert settings_warnings(derived) == ["label_values={'-1': 0} has no effect: derived_labels has every label"]
    everything = Settings(all_data=True, fold_column="f", mixup_alpha=0.2, batch_size=1)
    assert settings_warnings(everything) == [
        "fold_column='f' has no effect: all_data=True",
        "mixup_alpha=0.2 has no effect: batch_size=1, so no image has another to be mixed with",
    ]


def test_peak_learning_rate() -> None:
    assert Settings(init_lr=1e-3, warmup_multiplier=10.0).peak_lr == pytest.approx(1e-2)
    assert Settings(init_lr=1e-3, warmup_multiplier=10.0, warmup_epochs=0).peak_lr == 1e-3


def test_a_config_of_an_earlier_version_is_told_what_to_import(tmp_path: Path) -> None:
    file = tmp_path / "old.py"
    file.write_text("from catheters.settings import Settings\nsettings = Settings()\n")
    with pytest.raises(SettingsError, match=r"old\.py:1: catheters\.settings is .*`from catheters import Settings`"):
        load_settings(file)
    file.write_text("import nowhere\n")
    with pytest.raises(SettingsError, match=r"old\.py:1: ModuleNotFoundError: No module named 'nowhere'"):
        load_settings(file)
