"""A sample as files: RANZCR CLiP's layout, so that whatever reads the one reads the other."""

import csv
import functools
import io
import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from catheters.errors import UserError, counted, look_up
from catheters.io.files import UnreadableFileError, read_json, write_text
from catheters.labels import RANZCR_LABELS, ImageKind
from catheters.polylines import lengths_along
from catheters.runtime.console import say
from catheters.runtime.host import available_cores
from catheters.runtime.opencv_threads import without_opencv_threads
from catheters.runtime.progress import track
from catheters.synthetic.anatomy import LANDMARKS
from catheters.synthetic.hospitals import FIRST, HOSPITALS
from catheters.synthetic.lines_and_tubes import Catheter
from catheters.synthetic.plan import ImagePlan, plan_on, plan_sample
from catheters.synthetic.radiographs import find_radiographs, read_radiographs
from catheters.synthetic.render import render_image

GENERATOR_VERSION = 1
"""Raised whenever the same arguments give other files than before. A file that an earlier version did not write at all
is added to its samples instead: they are as good as new ones, and drawing them again would take minutes."""
FIRST_TEST_PATIENT = 500_000
JPEG_QUALITY = 92
POINT_SPACING_PX = 8.0
LANDMARKS_FILE, SPACING_FILE = "landmarks.csv", "spacing.csv"
README = """SYNTHETIC chest radiographs, drawn by `python -m catheters.synthetic`.

No patient was imaged: anatomy, tubes and lines are drawn by a program, and the labels follow from where it put the
tips. The files are laid out as those of RANZCR CLiP, so that every script can be tried without that data set. They are
good for trying the software and for nothing else: no score reached on them says anything about real radiographs.
"""
README_ON_REAL = """SEMI-SYNTHETIC chest radiographs, made by `python -m catheters.synthetic --on`.

The radiographs are real. Tubes and lines are drawn on them by a program, which has estimated where the vessels and
airways lie, and the labels follow from where it put the tips. Real tubes and lines that the radiographs show are in no
label. The files are good for comparing ways to train; no score reached on them says what a model does for patients.
"""


def generate_sample(
    folder: Path,
    *,
    num_images: int = 600,
    num_test_images: int = 60,
    image_size: int = 512,
    seed: int = 0,
    hospital: str = "first",
    num_workers: int | None = None,
) -> None:
    """Write a synthetic data set in RANZCR CLiP's layout into `folder`.

    The files are the same, byte for byte, for the same arguments, whatever `num_workers` (threads; None: one per core).
    `train.csv` comes last: a folder without it is unfinished, and the same call finishes it. A finished sample of the
    same arguments is left as it is; one that an earlier version wrote without `landmarks.csv` and `spacing.csv` gets
    them. `image_size` is the longer side in pixels. `hospital` is a key of `HOSPITALS`: the second one has other
    patients, catheters, tones and noise.

    Raises UserError for impossible arguments, and for a folder that holds anything but a sample of these arguments.
    """
    arguments: dict[str, object] = {
        "generator_version": GENERATOR_VERSION,
        "num_images": num_images,
        "num_test_images": num_test_images,
        "image_size": image_size,
        "seed": seed,
    }
    taken_at = look_up(HOSPITALS, hospital, "hospital")
    if taken_at is not FIRST:
        arguments["hospital"] = hospital
    num_workers = num_workers if num_workers is not None else available_cores()
    check_arguments(num_images, num_test_images, image_size, seed, num_workers)
    is_finished = is_complete(folder, arguments)
    missing = [name for name in (LANDMARKS_FILE, SPACING_FILE) if not (folder / name).is_file()]
    if is_finished and not missing:
        say(f"{folder}: the synthetic sample is already there, with the same arguments; nothing to do")
        return
    plan = functools.partial(plan_sample, image_size=image_size, seed=seed, hospital=taken_at)
    train, test = plan(num_images), plan(num_test_images, first_patient=FIRST_TEST_PATIENT)
    if is_finished:
        write_places_and_scales(folder, missing, train, test)
        say(f"{folder}: added {' and '.join(missing)} to the synthetic sample of an earlier version")
        return
    say(f"{folder}: drawing {counted(len(train) + len(test), 'synthetic radiograph')}")
    write_sample(folder, train, test, arguments, README, num_workers)
    say(
        f"{folder}: {counted(num_images, 'training image')} with labels, drawn lines and landmarks, "
        f"{counted(num_test_images, 'test image')}, and the pixel spacing of all"
    )


def generate_on(
    folder: Path,
    radiographs: Path,
    *,
    patients: Path | None = None,
    num_images: int = 600,
    image_size: int = 512,
    seed: int = 0,
    num_workers: int | None = None,
) -> None:
    """Draw tubes and lines on the real radiographs of a folder: a semi-synthetic data set in RANZCR CLiP's layout.

    Where the chest lies on each is estimated (`registration.fit_atlas`); each gets as many drawings as any other, or
    one more, in as many image files; of more radiographs than `num_images` some are chosen at random. Images that show
    no frontal chest are left out, with a warning. There are no test images. For the same arguments and radiographs the
    files are the same, and a finished folder is left as it is.

    Args:
        folder: new or empty.
        radiographs: a folder of images, in any format that the caches read.
        patients: a CSV with the columns `file` and `patient_id`; None: each image is a patient of its own.
        num_images: drawings in all.
        image_size: the longer side in pixels; smaller radiographs keep theirs.
        seed: another one, other drawings.
        num_workers: threads; None: one per core.

    Raises:
        UserError: impossible arguments, no radiograph to draw on, or a folder that holds anything but this data set.
    """
    num_workers = num_workers if num_workers is not None else available_cores()
    check_arguments(num_images, 0, image_size, seed, num_workers)
    files = find_radiographs(radiographs, patients)
    digest = files.digest()
    arguments = {
        "generator_version": GENERATOR_VERSION,
        "on": digest,
        "num_images": num_images,
        "image_size": image_size,
        "seed": seed,
    }
    if is_complete(folder, arguments):
        say(f"{folder}: the semi-synthetic data set is already there, with the same arguments; nothing to do")
        return
    drawn_on = read_radiographs(files, num_images, image_size=image_size, seed=seed, num_workers=num_workers)
    of_patients = counted(len({radiograph.patient_id for radiograph in drawn_on}), "patient")
    say(f"{folder}: drawing on {counted(len(drawn_on), 'radiograph')} of {of_patients}")
    plans = plan_on(drawn_on, num_images, digest, seed=seed)
    write_sample(folder, plans, [], arguments, README_ON_REAL, num_workers)
    say(f"{folder}: {counted(num_images, 'semi-synthetic image')} with labels, drawn lines, landmarks and spacing")


def write_sample(
    folder: Path,
    train: list[ImagePlan],
    test: list[ImagePlan],
    arguments: Mapping[str, object],
    readme: str,
    num_workers: int,
) -> None:
    """Write every file of a sample, `train.csv` last."""
    for name in ("train", "test"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_text(folder / "sample.json", json.dumps(arguments, indent=2) + "\n")
    write_text(folder / "README.txt", readme)
    files = [(plan, folder / "train" / f"{plan.uid}.jpg") for plan in train]
    files += [(plan, folder / "test" / f"{plan.uid}.jpg") for plan in test]
    write_images(files, num_workers)
    zeros = [[plan.uid, *([0] * len(RANZCR_LABELS))] for plan in test]
    write_csv(folder / "sample_submission.csv", ["StudyInstanceUID", *RANZCR_LABELS], zeros)
    write_csv(folder / "train_annotations.csv", ["StudyInstanceUID", "label", "data"], annotation_rows(train))
    write_places_and_scales(folder, (LANDMARKS_FILE, SPACING_FILE), train, test)
    rows = [[plan.uid, *plan.labels, plan.patient_id] for plan in train]
    write_csv(folder / "train.csv", ["StudyInstanceUID", *RANZCR_LABELS, "PatientID"], rows)


def check_arguments(num_images: int, num_test_images: int, image_size: int, seed: int, num_workers: int) -> None:
    """Raise UserError for numbers that no sample can have."""
    limits = (("num_images", num_images, 1), ("num_test_images", num_test_images, 0), ("image_size", image_size, 64))
    for name, value, least in (*limits, ("seed", seed, 0), ("num_workers", num_workers, 1)):
        if value < least:
            raise UserError(f"{name}: {value} is too small; give {least} or more")


def kind_of_images(folder: Path) -> ImageKind:
    """Whether a data set's folder holds drawn radiographs, real ones that are drawn on, or anything else."""
    readme = folder / "README.txt"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    kinds: dict[str, ImageKind] = {README: "synthetic", README_ON_REAL: "semi-synthetic"}
    return kinds.get(text, "real")


def is_complete(folder: Path, arguments: Mapping[str, object]) -> bool:
    """Whether `folder` holds the finished sample of these arguments; UserError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder that is new or empty")
    record = folder / "sample.json"
    if not record.is_file():
        found = sorted(path.name for path in folder.iterdir())[0]
        raise UserError(f"{folder}: holds '{found}', not a synthetic sample; name a folder that is new or empty")
    try:
        found_arguments = read_json(record)
    except UnreadableFileError as error:
        raise UserError(f"{error}; delete the folder or name another one") from None
    if found_arguments != arguments:
        raise UserError(
            f"{record}: the sample there has other arguments ({found_arguments}); delete the folder or name another one"
        )
    return (folder / "train.csv").is_file()


def write_images(files: list[tuple[ImagePlan, Path]], num_workers: int) -> None:
    """Draw and write each plan's JPEG file, several at once."""
    with without_opencv_threads(), ThreadPoolExecutor(num_workers) as pool:
        for _ in track(pool.map(write_image, files), "drawing synthetic radiographs", total=len(files)):
            pass


def write_image(file: tuple[ImagePlan, Path]) -> None:
    """Draw one plan and write it as a grey JPEG file."""
    plan, path = file
    encoded, data = cv2.imencode(".jpg", render_image(plan), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded
    path.write_bytes(data.tobytes())


def annotation_rows(plans: list[ImagePlan]) -> list[list[str]]:
    """Rows of `train_annotations.csv`: one for each catheter, its points in pixels from the entry to the tip."""
    return [
        [plan.uid, catheter.label, json.dumps(annotated_points(plan, catheter))]
        for plan in plans
        for catheter in plan.catheters
    ]


def annotated_points(plan: ImagePlan, catheter: Catheter) -> list[list[int]]:
    """The part of a catheter's course that the image shows, as whole pixels about 8 px apart, towards the tip."""
    along = lengths_along(catheter.course_px)
    wanted = np.linspace(0, along[-1], max(2, round(float(along[-1]) / POINT_SPACING_PX)))
    points = np.stack([np.interp(wanted, along, catheter.course_px[:, axis]) for axis in (0, 1)], axis=1)
    shown = [point for point in points if plan.view.contains(point)]
    return [[round(float(x)), round(float(y))] for x, y in shown]


def write_places_and_scales(
    folder: Path, names: Collection[str], train: list[ImagePlan], test: list[ImagePlan]
) -> None:
    """Write those that are named of `landmarks.csv`, of the training images, and `spacing.csv`, of all."""
    if LANDMARKS_FILE in names:
        write_csv(folder / LANDMARKS_FILE, ["StudyInstanceUID", "name", "x", "y"], landmark_rows(train))
    if SPACING_FILE in names:
        columns = ["StudyInstanceUID", "spacing_x", "spacing_y"]
        write_csv(folder / SPACING_FILE, columns, [spacing_row(plan) for plan in (*train, *test)])


def landmark_rows(plans: list[ImagePlan]) -> list[list[str]]:
    """Rows of `landmarks.csv`: those of the atlas' landmarks that the image shows, in pixels."""
    rows = []
    for plan in plans:
        pixels = plan.view.to_pixels(plan.patient.deform(list(LANDMARKS.values())))
        for name, pixel in zip(LANDMARKS, pixels, strict=True):
            if plan.view.contains(pixel):
                rows.append([plan.uid, name, *(f"{value:.1f}" for value in pixel)])
    return rows


def spacing_row(plan: ImagePlan) -> list[str]:
    """An image's row of `spacing.csv`: millimetres of the patient per pixel of the file, across and down.

    The labels go by millimetres of the atlas, of which a patient has a few per cent more or fewer.
    """
    spacing = f"{1 / plan.view.px_per_mm:.6f}"
    return [plan.uid, spacing, spacing]


def write_csv(path: Path, columns: list[str], rows: list[list[str]] | list[list[object]]) -> None:
    """Write a table whole or not at all."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, table.getvalue())
