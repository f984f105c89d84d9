"""Drawing on real radiographs: the anatomy is found where it is, labels follow from it, and what is refused."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from catheters.errors import UserError
from catheters.labels import RANZCR_LABELS
from catheters.synthetic import ImagePlan, generate_on, kind_of_images, plan_sample
from catheters.synthetic.anatomy import LANDMARKS
from catheters.synthetic.registration import fit_atlas
from catheters.synthetic.render import render_image
from tests.conftest import SHARED_DATA

SIZE = 256


def bare(plan: ImagePlan) -> np.ndarray:
    """A plan's radiograph without its catheters, (H, W) uint8."""
    return render_image(replace(plan, catheters=()))


@pytest.fixture(scope="module")
def plans() -> list[ImagePlan]:
    """One image of each of six patients, none of which has anything to do with the fit's average chest."""
    return list({plan.patient_id: plan for plan in plan_sample(24, image_size=SIZE, seed=5)}.values())[:6]


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory, plans: list[ImagePlan]) -> Path:
    """Radiographs of two patients, in a folder of each, and a table of whose they are."""
    folder = tmp_path_factory.mktemp("radiographs")
    rows = []
    for number, plan in enumerate(plans[:4]):
        name = f"{'ab'[number % 2]}/{number}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), bare(plan))
        rows.append((name, f"patient {number % 2}"))
    pd.DataFrame(rows, columns=["file", "patient_id"]).to_csv(folder / "whose.csv", index=False)
    return folder


def draw(folder: Path, radiographs: Path, **arguments: object) -> Path:
    settings = {"patients": radiographs / "whose.csv", "num_images": 30, "image_size": SIZE, **arguments}
    generate_on(folder, radiographs, **settings)  # type: ignore[arg-type]
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_landmarks_are_found_where_the_chest_was_drawn(plans: list[ImagePlan]) -> None:
    """Patients differ by 7% in width and 12% in height, views by 9 mm: the fit has to follow all of it."""
    atlas = list(LANDMARKS.values())
    errors = []
    for plan in plans:
        fit = fit_atlas(bare(plan))
        found = fit.view.to_pixels(fit.patient.deform(atlas))
        true = plan.view.to_pixels(plan.patient.deform(atlas))
        errors.append(np.hypot(*(found - true).T) / plan.view.px_per_mm)
        assert fit.correlation > 0.6
    assert np.median(errors) < 6
    assert np.max(errors) < 20


@pytest.mark.slow
@pytest.mark.parametrize(("zoom", "shift", "turn"), [(1.2, (20, -12), 0.0), (0.8, (-15, 25), 0.06)])
def test_the_fit_follows_a_moved_image(
    plans: list[ImagePlan], zoom: float, shift: tuple[float, float], turn: float
) -> None:
    """The carina of an image that OpenCV moves must be found where the same matrix puts it."""
    plan = plans[0]
    image = bare(plan)
    middle = (image.shape[1] / 2 - 0.5, image.shape[0] / 2 - 0.5)
    matrix = cv2.getRotationMatrix2D(middle, math.degrees(turn), zoom)
    matrix[:, 2] += shift
    moved = cv2.warpAffine(image, matrix, image.shape[::-1])
    true = matrix @ [*plan.view.to_pixels(plan.patient.deform([LANDMARKS["carina"]]))[0], 1]
    fit = fit_atlas(moved)
    found = fit.view.to_pixels(fit.patient.deform([LANDMARKS["carina"]]))[0]
    assert math.dist(found, true) < 12 * fit.view.px_per_mm
    assert fit.view.zoom == pytest.approx(plan.view.zoom * zoom, rel=0.1)


@pytest.mark.slow
def test_tables_and_images(tmp_path: Path, radiographs: Path) -> None:
    folder = draw(tmp_path / "new", radiographs)
    train = pd.read_csv(folder / "train.csv")
    assert list(train.columns) == ["StudyInstanceUID", *RANZCR_LABELS, "PatientID"]
    assert sorted(train["PatientID"].value_counts()) == [14, 16]  # 30 on four radiographs, two a patient: 8 8 7 7
    annotations = pd.read_csv(folder / "train_annotations.csv")
    for row in train.itertuples():
        of_image = annotations[annotations["StudyInstanceUID"] == row.StudyInstanceUID]
        positive = {label for label, value in zip(RANZCR_LABELS, row[2:13], strict=True) if value}
        assert set(of_image["label"]) == positive
        height, width = cv2.imread(str(folder / "train" / f"{row.StudyInstanceUID}.jpg"), cv2.IMREAD_GRAYSCALE).shape
        for text in of_image["data"]:
            points = np.array(json.loads(text))
            assert len(points) >= 1
            assert (points >= 0).all()
            assert (points < [width, height]).all()
    assert not list((folder / "test").iterdir())
    assert kind_of_images(folder) == "semi-synthetic"
    assert "SEMI-SYNTHETIC" in (folder / "README.txt").read_text()
    assert set(pd.read_csv(folder / "spacing.csv")["StudyInstanceUID"]) == set(train["StudyInstanceUID"])


@pytest.mark.slow
def test_only_catheters_and_marks_are_drawn(tmp_path: Path, radiographs: Path) -> None:
    """Away from the drawn lines and the corners an image is its radiograph, but for what JPEG does to it."""
    folder = draw(tmp_path / "new", radiographs)
    backgrounds = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted(radiographs.rglob("*.png"))]
    annotations = pd.read_csv(folder / "train_annotations.csv")
    gains = []
    for file in (folder / "train").iterdir():
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).astype(float)
        same_size = [background.astype(float) for background in backgrounds if background.shape == image.shape]
        background = min(same_size, key=lambda other: np.abs(other - image).mean())
        near = np.zeros(image.shape, np.uint8)
        lines = [json.loads(text) for text in annotations.loc[annotations["StudyInstanceUID"] == file.stem, "data"]]
        cv2.polylines(near, [np.array(line) for line in lines], False, 1, 16)
        # the course goes on to the image's edge after the last point that it shows
        outside = np.ones(image.shape, bool)
        outside[12:-12, 12:-12] = False
        assert np.abs(image - background)[(near == 0) & ~outside].mean() < 2
        on = [image[y, x] - background[y, x] for line in lines for x, y in line if not outside[y, x]]
        gains += on
    assert np.median(gains) > 8


@pytest.mark.slow
def test_files_are_the_same_for_any_number_of_workers(tmp_path: Path, radiographs: Path) -> None:
    one = draw(tmp_path / "one", radiographs, num_images=6, num_workers=1)
    several = draw(tmp_path / "several", radiographs, num_images=6, num_workers=3)
    assert contents(one) == contents(several)
    other = draw(tmp_path / "other", radiographs, num_images=6, seed=1)
    assert not contents(one).keys() & {name for name in contents(other) if name.endswith(".jpg")}


@pytest.mark.slow
def test_a_finished_folder_is_left_and_another_refused(
    tmp_path: Path, radiographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw(tmp_path / "new", radiographs, num_images=4)
    before = contents(folder)
    draw(folder, radiographs, num_images=4)
    assert "already there" in capsys.readouterr().out
    others = draw(folder.parent / "others", radiographs, num_images=4, patients=None)
    assert not {name for name in contents(others) if name.endswith(".jpg")} & before.keys()  # another data set's ids
    with pytest.raises(UserError, match="other arguments"):
        generate_on(folder, radiographs, num_images=4, image_size=SIZE)  # of other patients
    assert contents(folder) == before


@pytest.mark.slow
def test_of_many_radiographs_some_are_chosen(tmp_path: Path, radiographs: Path) -> None:
    """By the seed, not the first ones; each has one drawing."""
    chosen = []
    for seed in range(8):
        folder = draw(tmp_path / str(seed), radiographs, num_images=2, patients=None, image_size=64, seed=seed)
        chosen.append(tuple(sorted(pd.read_csv(folder / "train.csv")["PatientID"])))
    assert all(len(set(pair)) == 2 for pair in chosen)
    assert len(set(chosen)) > 2


@pytest.mark.slow
def test_images_that_show_no_chest_are_left_out(
    tmp_path: Path, radiographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    chest = cv2.imread(str(radiographs / "a" / "0.png"), cv2.IMREAD_GRAYSCALE)
    dot = np.zeros((SIZE, SIZE), np.uint8)
    dot[100:105, 100:105] = 200
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    for name, image in (("chest", chest), ("negative", 255 - chest), ("noise", noise), ("dot", dot)):
        cv2.imwrite(str(mixed / f"{name}.png"), image)
    (mixed / "torn.png").write_bytes((mixed / "chest.png").read_bytes()[:400])
    generate_on(tmp_path / "new", mixed, num_images=3, image_size=SIZE)
    told = "".join(capsys.readouterr())
    assert "4 images left out" in told
    for name in (
        "negative.png",
        "noise.png (looks unlike a frontal chest",
        "torn.png",
        "dot.png (nearly all of it is black",
    ):
        assert name in told
    assert set(pd.read_csv(tmp_path / "new" / "train.csv")["PatientID"]) == {"chest.png"}
    (mixed / "chest.png").unlink()
    with pytest.raises(UserError, match="no radiograph to draw on"):
        generate_on(tmp_path / "none", mixed, num_images=3, image_size=SIZE)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (["file", "patient"], [("a/0.png", "p")], "no column 'patient_id'"),
        (["file", "patient_id"], [("a/0.png", "")], r"no patient_id for a/0\.png"),
        (["file", "patient_id"], [("a/9.png", "p")], r"a/9\.png is not in"),
        (["file", "patient_id"], [("a/0.png", "p"), ("a/0.png", "q")], r"a/0\.png stands twice"),
    ],
)
def test_broken_tables_of_patients_are_refused(
    tmp_path: Path, radiographs: Path, columns: Sequence[str], rows: Sequence[tuple[str, str]], message: str
) -> None:
    table = tmp_path / "whose.csv"
    pd.DataFrame(rows, columns=columns).to_csv(table, index=False)
    with pytest.raises(UserError, match=message):
        draw(tmp_path / "new", radiographs, patients=table)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_command_line(tmp_path: Path, radiographs: Path) -> None:
    command = [sys.executable, "-m", "catheters.synthetic", str(tmp_path / "new"), "--image-size", "128"]
    on = ["--on", str(radiographs), "--patients", str(radiographs / "whose.csv"), "--num-images", "5"]
    finished = subprocess.run([*command, *on], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-2:] == [
        f"{tmp_path / 'new'}: drawing on 4 radiographs of 2 patients",
        f"{tmp_path / 'new'}: 5 semi-synthetic images with labels, drawn lines, landmarks and spacing",
    ]
    for arguments, told in ((on[2:], "--on"), ([*on, "--num-test-images", "3"], "no test images")):
        refused = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert told in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "xrays").is_dir(), reason=f"{SHARED_DATA / 'xrays'}: no real radiographs there")
def test_real_radiographs_look_like_the_atlas() -> None:
    files = sorted((SHARED_DATA / "xrays").glob("*.png"))[::8]
    correlations = [fit_atlas(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)).correlation for file in files]
    assert min(correlations) > 0.25
    assert np.median(correlations) > 0.5
