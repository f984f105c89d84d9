"""The audit of a data set in which every kind of mistake was made once."""

import csv
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.audit.report import _size_in_words
from catheters.config.settings import Settings
from catheters.data.decoding.radiograph import read_radiograph
from tests.browser import SCREEN, Browser
from tests.conftest import assert_user_error, run_script
from tests.data.decoding.test_polarity import drawn_chest

LABELS = ("ETT - Abnormal", "ETT - Normal", "CVC - Normal")
ROWS = [
    # uid, patient, part, labels
    ("good_0", "p0", 0, "0,1,0"),
    ("good_1", "p1", 1, "0,0,1"),
    ("good_2", "p2", 0, "0,1,1"),
    ("good_3", "p3", 1, "1,0,0"),
    ("leaking_0", "p4", 0, "0,1,0"),
    ("leaking_1", "p4", 1, "0,1,0"),
    ("twin_0", "p5", 0, "0,1,0"),
    ("twin_1", "p6", 1, "0,1,0"),
    ("disagreeing_0", "p7", 0, "0,1,0"),
    ("disagreeing_1", "p7", 0, "1,0,0"),
    ("half_0", "p8", 0, "0,0,1"),
    ("half_1", "p8", 0, "0,0,1"),
    ("missing", "p9", 0, "0,1,0"),
    ("truncated", "p10", 0, "0,1,0"),
    ("blank", "p11", 0, "0,1,0"),
    ("tiny", "p12", 0, "0,1,0"),
    ("inverted", "p13", 0, "0,1,0"),
    ("two_tubes", "p14", 0, "1,1,0"),
    ("nothing", "p15", 0, "0,0,0"),
    ("wide", "p16", 0, "0,1,0"),
]


def draw_image(rng: np.random.Generator) -> np.ndarray:
    """A drawn chest, 300 x 300, with shadows of its own."""
    chest = cv2.resize(drawn_chest(), (300, 300)).astype(float)
    for _ in range(40):
        blob = np.zeros((300, 300))
        center = tuple(rng.integers(0, 300, 2).tolist())
        cv2.circle(blob, center, int(rng.integers(8, 40)), float(rng.uniform(-60, 60)), -1)
        chest += blob
    return np.clip(chest, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    rng = np.random.default_rng(1)
    (folder / "train").mkdir()
    header = ",".join(("StudyInstanceUID", "PatientID", "part", *LABELS))
    (folder / "train.csv").write_text(
        "\n".join([header, *(f"{uid},{patient},{part},{labels}" for uid, patient, part, labels in ROWS)]) + "\n"
    )
    images = {uid: draw_image(rng) for uid, *_ in ROWS if uid != "missing"}
    images["twin_1"] = images["twin_0"]
    images["disagreeing_1"] = images["disagreeing_0"]
    images["half_1"] = cv2.resize(images["half_0"], (256, 256), interpolation=cv2.INTER_AREA)
    images["blank"] = np.full((300, 300), 7, dtype=np.uint8)
    images["tiny"] = cv2.resize(images["tiny"], (100, 120))
    images["inverted"] = 255 - images["inverted"]
    images["wide"] = cv2.resize(images["wide"], (900, 300))
    images["no_row"] = draw_image(rng)
    for uid, image in images.items():
        cv2.imwrite(str(folder / "train" / f"{uid}.jpg"), image)
    cv2.imwrite(str(folder / "train" / "twin_1.jpg"), images["twin_0"])  # of another time: the images are compared
    with (folder / "train" / "twin_1.jpg").open("ab") as file:
        file.write(b"other bytes, the same image")
    truncated = folder / "train" / "truncated.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-2000])
    (folder / "train" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def config(data_set: Path, tmp_path: Path, write_config: Callable[[Settings], Path], settings: Settings) -> Path:

    return write_config(
        dataclasses.replace(
            settings,
            dataset_folder=str(data_set),
            label_columns=LABELS,
            fold_column="part",
            cache_name="mistakes",
            run_name="mistakes",
        )
    )


FOUND = {
    ("stop", "leaking patient"): {"leaking_0", "leaking_1"},
    ("stop", "same image, other fold"): {"twin_0", "twin_1"},
    ("stop", "same image, other labels"): {"disagreeing_0", "disagreeing_1"},
    ("look", "no file"): {"missing"},
    ("look", "unreadable"): {"truncated"},
    ("look", "blank"): {"blank"},
    ("look", "tiny"): {"tiny"},
    ("look", "inverted"): {"inverted"},
    ("look", "contradiction"): {"two_tubes"},
    ("note", "no label"): {"nothing"},
    ("note", "odd shape"): {"wide"},
    ("note", "repeated"): {"half_0", "half_1"},
    ("note", "no row"): {""},
    ("note", "rare label"): {""},
}


@pytest.mark.slow
def test_every_mistake_is_found_once(config: Path, tmp_path: Path) -> None:
    result = run_script("preproc_npy.py", "--config", config, "--audit")
    assert result.returncode == 1, result.stderr
    assert "Do not train yet: scores would be wrong, or training refuses." in result.stdout
    folder = tmp_path / "cache" / "mistakes_audit"
    with (folder / "audit.csv").open() as file:
        lines = list(csv.DictReader(file))
    found: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        found.setdefault((line["severity"], line["kind"]), set()).add(line["uid"])
    assert found == FOUND
    of_kind = {line["kind"]: line for line in lines}
    assert of_kind["no row"]["file"].endswith("no_row.jpg")
    assert of_kind["unreadable"]["issue"] == "damaged JPEG: Premature end of JPEG file"
    assert of_kind["contradiction"]["issue"] == "ETT - Abnormal and ETT - Normal"
    assert of_kind["leaking patient"]["issue"] == "patient p4 in folds [0, 1]"
    assert (of_kind["blank"]["patient"], of_kind["blank"]["fold"]) == ("p11", "0")
    assert of_kind["blank"]["labels"] == "ETT - Normal"
    rare = {line["issue"] for line in lines if line["kind"] == "rare label"}
    assert rare == {"ETT - Abnormal: 3 positives of 3 patients", "CVC - Normal: 4 positives of 3 patients"}


@pytest.mark.slow
def test_the_page_shows_them_and_nothing_from_elsewhere(config: Path, tmp_path: Path) -> None:
    run_script("preproc_npy.py", "--config", config, "--audit")
    page = (tmp_path / "cache" / "mistakes_audit" / "audit.html").read_text()
    for uid, *_ in ROWS[4:]:
        assert uid in page
    assert page.count('<img src="data:image/jpeg;base64,') >= 15
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "20 images of 17 patients" in " ".join(page.split())


def first_lines(page: str) -> str:
    header = re.search(r"<header>(.*?)</header>", page, re.DOTALL)
    assert header is not None
    return " ".join(re.sub(r"<[^>]*>", "", header[1]).split())


@pytest.mark.slow
def test_the_first_lines_say_what_stands_against_training(config: Path, tmp_path: Path) -> None:
    run_script("preproc_npy.py", "--config", config, "--audit")
    page = (tmp_path / "cache" / "mistakes_audit" / "audit.html").read_text()
    text = first_lines(page)
    assert (
        "Do not train yet: scores would be wrong, or training refuses. Against it: Patients in several folds (1), "
        "The same image in several folds (1), The same image with different labels (1)."
    ) in text
    assert "What it cannot see." in text
    assert set(re.findall('href="#([^"]*)"', page)) == set(re.findall('<h2 id="([^"]*)"', page))


@pytest.mark.slow
def test_it_can_be_read_on_a_screen_a_phone_and_paper(config: Path, tmp_path: Path, browser: Browser) -> None:
    run_script("preproc_npy.py", "--config", config, "--audit")
    browser.show(SCREEN)
    browser.open((tmp_path / "cache" / "mistakes_audit" / "audit.html").as_uri())
    assert browser.cut_boxes() == []
    browser.assert_readable()
    assert browser.console == []


@pytest.mark.parametrize(("num_bytes", "words"), [(0, "0.0 MB"), (1_340_000, "1.3 MB"), (31_460_000_000, "31.5 GB")])
def test_sizes_have_units_that_fit(num_bytes: int, words: str) -> None:
    assert _size_in_words(num_bytes) == words


@pytest.mark.slow
def test_names_cannot_break_the_page(data_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    cv2.imwrite(str(folder / "x.png"), np.zeros((40, 40), dtype=np.uint8))
    (folder / "x.png").rename(folder / "<script>alert(1)<").with_suffix("")
    result = run_script("preproc_npy.py", "--audit", "--folder", folder, f"cache_folder={tmp_path / 'cache'}")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "cache" / "hostile_audit" / "audit.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_a_plain_folder(data_set: Path, tmp_path: Path) -> None:
    """Without a table there are no patients, folds and labels to speak of."""
    result = run_script("preproc_npy.py", "--audit", "--folder", data_set / "train", f"cache_folder={tmp_path}")
    assert result.returncode == 0, result.stderr
    with (tmp_path / "train_audit" / "audit.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["kind"] for line in lines} == {"unreadable", "blank", "tiny", "inverted", "odd shape", "repeated"}
    assert {line["patient"] for line in lines} == {""}
    repeated = {line["uid"] for line in lines if line["kind"] == "repeated"}
    assert repeated == {f"{name}_{i}.jpg" for name in ("twin", "disagreeing", "half") for i in (0, 1)}
    assert "patients" not in (tmp_path / "train_audit" / "audit.html").read_text()


@pytest.mark.slow
def test_a_plain_folder_needs_no_config(data_set: Path, tmp_path: Path) -> None:
    result = run_script(
        "preproc_npy.py", "--audit", "--folder", data_set / "train", f"cache_folder={tmp_path}", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert f"files of {data_set / 'train'} that are passed over: .txt (1)" in result.stdout
    assert "19 of 20 X-rays could be read" in result.stdout


@pytest.mark.slow
def test_what_training_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train.csv").write_text("StudyInstanceUID,PatientID,L\na,a,0\nb,b,0\nc,c,0\nd,d,0\ne,e,0\n")
    arguments = [f"dataset_folder={tmp_path}", f"cache_folder={tmp_path}", "label_columns=['L']", "pos_weight={}"]
    arguments += ["lines=None", "annotation_table=None"]
    result = run_script("preproc_npy.py", "--audit", *arguments)
    assert result.returncode == 1
    assert "Too little to train on" in result.stdout
    assert "Do not train yet" in result.stdout
    for uid in "abcde":
        cv2.imwrite(str(tmp_path / "train" / f"{uid}.jpg"), draw_image(np.random.default_rng(ord(uid))))
    result = run_script("preproc_npy.py", "--audit", *arguments)
    assert result.returncode == 1
    text = (tmp_path / "ranzcr_audit" / "audit.csv").read_text()
    assert "no label has both positives and negatives" in text


@pytest.mark.slow
def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    for arguments, message in [
        (("--folder", str(tmp_path)), "--folder goes with --audit"),
        (("--audit", "--show", "3"), "--audit draws images of its own"),
        (("--show", "0"), "'0' is not a number of images from 1 to 500"),
    ]:
        result = run_script("preproc_npy.py", *arguments)
        assert result.returncode == 2
        assert message in result.stderr
    assert_user_error(run_script("preproc_npy.py", "--audit", "--folder", tmp_path / "absent"), "no such folder")
    assert_user_error(run_script("preproc_npy.py", "--audit", "--folder", tmp_path), "no image in it")


@pytest.mark.slow
def test_training_refuses_leaking_folds(config: Path, tmp_path: Path) -> None:
    """The table's before anything is decoded, equal images once their pixels are known."""
    refused = run_script("preproc_npy.py", "--config", config)
    assert_user_error(refused, "patients in more than one fold: 1, p4 for one", "allow_leaking_folds=True")
    assert not list((tmp_path / "cache").glob("*.npy"))
    built = run_script("preproc_npy.py", "--config", config, "allow_leaking_folds=True")
    assert built.returncode == 1  # two cannot be read
    result = run_script("train.py", "--config", config)
    assert_user_error(
        result,
        "patients in more than one fold: 1, p4 for one",
        "images in more than one fold under several ids: 1, twin_0 and twin_1 for one",
        "allow_leaking_folds=True",
    )
    assert not (tmp_path / "saved_models").exists()
    allowed = run_script("train.py", "--config", config, "allow_leaking_folds=True", "epochs=1", "folds=[0]")
    assert allowed.returncode == 0, allowed.stderr
    assert "patients in more than one fold: 1" in allowed.stderr


@pytest.mark.slow
def test_files_of_8_and_of_16_bits(tmp_path: Path) -> None:
    """A 16-bit copy of an 8-bit radiograph becomes other pixels, so a data set that mixes both gets a note."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    images = [draw_image(np.random.default_rng(seed)) for seed in range(3)]
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    command = ("preproc_npy.py", "--audit", "--folder", folder, f"cache_folder={tmp_path}")
    assert run_script(*command).returncode == 0
    assert "mixed depth" not in (tmp_path / "mixed_audit" / "audit.csv").read_text()
    cv2.imwrite(str(folder / "wide.png"), images[0].astype(np.uint16) * 257)
    assert run_script(*command).returncode == 0
    with (tmp_path / "mixed_audit" / "audit.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["kind"] == "mixed depth"]
    assert [(line["severity"], line["uid"], line["issue"]) for line in lines] == [
        ("note", "wide.png", "1 of 4 images are shown by the middle 99% of their values")
    ]
    assert (read_radiograph(folder / "wide.png").image != images[0]).any()
