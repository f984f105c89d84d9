"""Predicted lines over X-rays, and all that `predict.py --lines` writes."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import catheters
from catheters.commands.predict import main
from catheters.data.annotations import read_annotations
from catheters.errors import UserError
from catheters.inference.lines.drawing import draw_over, draw_with_legend
from catheters.inference.lines.finding import FoundLines
from catheters.inference.lines.landmarks import FoundLandmark
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import PredictedLine
from catheters.measurements import Measurement, MeasurementDefinition
from catheters.viz.lines import DEVICE_TYPE_COLOURS
from catheters.viz.text import load_font
from tests.conftest import run_script


def line_at(*points: tuple[float, float], device_type: str = "CVC") -> PredictedLine:
    return PredictedLine(
        device_type=device_type,
        label="CVC - Normal",
        points=np.array(points, dtype=np.float64),
        confidence=0.9,
        tip_probability=0.8,
        length=100.0,
    )


def is_coloured(drawn: Image.Image, device_type: str) -> np.ndarray:
    return (np.asarray(drawn) == DEVICE_TYPE_COLOURS[device_type]).all(axis=2)


def test_lines_over_a_large_xray() -> None:
    """On the original's own pixels, thick enough to be seen where it is shown as a whole."""
    xray = np.full((1800, 2400), 100, dtype=np.uint8)
    lines = (line_at((100, 300), (1200, 300)), line_at((2000, 100), (2000, 900), device_type="ETT"))
    found = FoundLines(lines=lines, full_shape=(1800, 2400))
    framed = draw_with_legend(xray, found, ["ETT", "NGT", "CVC"])
    assert framed.width == 2400 and framed.height > 1800
    drawn, strip = framed.crop((0, 0, 2400, 1800)), framed.crop((0, 1800, *framed.size))
    rows = np.flatnonzero(is_coloured(drawn, "CVC")[:, 600])
    assert rows.mean() == pytest.approx(300, abs=1)
    assert 4 <= len(rows) <= 7  # three times as thick as on a sheet
    assert np.flatnonzero(is_coloured(drawn, "ETT")[500]).mean() == pytest.approx(2000, abs=1)
    for device_type, is_drawn in (("ETT", True), ("NGT", False), ("CVC", True)):
        assert is_coloured(drawn, device_type).any() == is_coloured(strip, device_type).any() == is_drawn
    small = draw_over(xray[::6, ::6], found, ["ETT", "NGT", "CVC"])
    assert small.size == (400, 300)
    assert np.flatnonzero(is_coloured(small, "CVC")[:, 100]).mean() == pytest.approx(50, abs=1)


def test_what_is_not_predicted_is_dashed() -> None:
    """In the image and before its name; its label is longer, by the question mark. The others stay as they are."""
    xray = np.full((600, 800), 100, dtype=np.uint8)
    lines = (line_at((100, 300), (400, 300)), line_at((700, 50), (700, 400), device_type="ETT"))
    found = FoundLines(lines=lines, full_shape=(600, 800))
    sure = draw_with_legend(xray, found, ["ETT", "CVC"])
    unsure = draw_with_legend(xray, found, ["ETT", "CVC"], ["CVC", "NGT"])
    assert is_coloured(sure, "CVC")[300, 100:380].all()
    on_line = is_coloured(unsure, "CVC")[300, 100:380]
    num_dashes = 1 + int((np.diff(on_line.astype(int)) == 1).sum())
    assert num_dashes == 20  # of 21 along 300 pixels: dashes of 7.6 and gaps of 7, of which round ends take some
    assert 0.5 < on_line.mean() < 0.75
    label = np.s_[280:320, 408:600]  # right of the ring
    # Orange, faint at the edges of letters: more red than blue, which grey is not.
    reds = [np.asarray(of)[label].astype(int) @ [1, 0, -1] for of in (sure, unsure)]
    widths = [np.flatnonzero((red > 60).any(axis=0)).max() for red in reds]
    assert widths[1] > widths[0] + 5
    assert (np.asarray(sure)[:, 610:] == np.asarray(unsure)[:, 610:])[:600].all()
    names = [(np.asarray(of)[600:].astype(int) @ [1, 0, -1] > 60).any(axis=0) for of in (sure, unsure)]
    begin = int(np.flatnonzero(names[1])[0])
    assert names[0][begin : begin + 18].all() and not names[1][begin : begin + 18].all()
    ends = [int(np.flatnonzero(of)[-1]) for of in names]
    assert ends[1] - ends[0] == pytest.approx(load_font(12).getlength(" (not predicted)"), abs=3)
    assert (is_coloured(sure, "ETT")[600:] == is_coloured(unsure, "ETT")[600:])[:, :begin].all()


def test_lengths_can_be_told_apart() -> None:
    """A single one has no number; of two both have, in the image and in the legend. A landmark's symbol is a cross."""
    xray = np.full((600, 800), 100, dtype=np.uint8)
    above = MeasurementDefinition("CVC tip", "carina", "vertical")
    lengths = [
        TakenMeasurement(
            name="height",
            measurement=Measurement(above, (x, 100.0), (x, 500.0), 400.0, 80.0, 0.5, ""),
            label_by_rule=None,
            doubt="",
        )
        for x in (200.0, 600.0)
    ]

    def white_beside(measurements: list[TakenMeasurement], x: int) -> int:
        found = FoundLines(lines=(), full_shape=(600, 800), measurements=tuple(measurements))
        drawn = np.asarray(draw_over(xray, found, ["CVC"]))
        return int((drawn[285:315, x + 8 : x + 30] == 255).all(axis=2).sum())

    assert white_beside(lengths[:1], 200) == 0
    assert white_beside(lengths, 200) >= 4 and white_beside(lengths, 600) >= 4
    carina = FoundLandmark(x=300.0, y=300.0, probability=0.9)
    marked = draw_with_legend(xray, FoundLines(lines=(), full_shape=(600, 800), landmarks={"carina": carina}), ["CVC"])
    strip = (np.asarray(marked)[600:] == 255).all(axis=2)[:, :32]
    rows, columns = np.nonzero(strip)
    assert np.ptp(rows) == pytest.approx(10, abs=1) and np.ptp(columns) == pytest.approx(10, abs=1)


def test_tips_as_shares() -> None:
    """Edges are 0 and 1, half a pixel outside of the outermost centres; nothing lies beyond them."""
    lines = (line_at((0, 0), (99.5, 49.5)), line_at((0, 0), (-7, 400)), line_at((0, 0), (0, 0), device_type="ETT"))
    shares = FoundLines(lines=lines, full_shape=(200, 400)).tip_shares()
    assert shares == {"CVC": [(0.25, 0.25), (0.0, 1.0)], "ETT": [(0.5 / 400, 0.5 / 200)]}


@pytest.fixture
def xrays(sample_folder: Path, tmp_path: Path) -> Path:
    """Some that the model has seen, a black one, and a broken one."""
    folder = tmp_path / "xrays"
    folder.mkdir()
    for file in sorted((sample_folder / "train").iterdir())[:6]:
        shutil.copy(file, folder)
    Image.new("L", (80, 70)).save(folder / "black.png")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def test_the_script_finds_and_draws_them(
    lines_run: Path, xrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "p.csv", tmp_path / "lines"
    options = ["--out", str(out), "--lines", str(folder), "--worklist", "--workers", "1"]
    assert main(["--model", str(lines_run), str(xrays), *options]) == 1  # the broken one
    said = capsys.readouterr().out
    names = {file.stem for file in xrays.iterdir()} - {"bad"}
    assert {file.name for file in folder.iterdir()} == {f"{name}.jpg" for name in names} | {"contact_sheet.jpg"}
    annotations = read_annotations(tmp_path / "p_lines.csv", "StudyInstanceUID")
    table = pd.read_csv(tmp_path / "p_lines.csv", dtype={"StudyInstanceUID": str})
    assert len(table) == sum(map(len, annotations.values())) >= 4
    assert f"{len(table)} lines in {len(annotations)} of 7 images\n" in said
    assert f"lines over the X-rays -> {folder / 'contact_sheet.jpg'}\n" in said
    assert f"one row per line -> {tmp_path / 'p_lines.csv'}\n" in said
    model = catheters.load(lines_run, device="cpu")
    uid = table["StudyInstanceUID"].iloc[0]
    result = model(xrays / f"{uid}.jpg")
    of_image = table[table["StudyInstanceUID"] == uid]
    assert of_image["label"].tolist() == [line.label for line in result.lines]
    assert of_image["length"].tolist() == pytest.approx([line.length for line in result.lines], abs=0.06)
    for annotation, line in zip(annotations[uid], result.lines, strict=True):
        assert np.abs(annotation.points - line.points).max() < 0.06
        assert annotation.points[-1] == pytest.approx(np.array(line.tip), abs=0.06)
    assert of_image[["tip_x", "tip_y"]].to_numpy() == pytest.approx(
        np.array([line.tip for line in result.lines]), abs=0.06
    )
    with Image.open(folder / f"{uid}.jpg") as drawn, Image.open(xrays / f"{uid}.jpg") as xray:
        width, height = xray.size
        assert drawn.width == width and drawn.height > height
        assert result.draw_lines().size == drawn.size
    device_type = of_image["device_type"].iloc[0]
    assert list(result.tips) == ["ETT", "NGT", "CVC", "Swan Ganz"]
    assert result.tips[device_type][0] == result.lines[0].tip
    sentences = pd.read_csv(tmp_path / "p_worklist.csv", dtype=str).set_index("StudyInstanceUID")
    x, y = of_image[["tip_x", "tip_y"]].iloc[0] + 0.5
    assert f"({x / width:.0%}, {y / height:.0%})" in sentences.loc[uid, device_type]
    # New predictions under the same name: the lines are not theirs.
    assert main(["--model", str(lines_run), str(xrays), "--out", str(out), "--workers", "1"]) == 1
    assert out.exists() and not (tmp_path / "p_lines.csv").exists()
    # A table of somebody's own stays.
    (tmp_path / "p_lines.csv").write_text("StudyInstanceUID,label,data\n")
    main(["--model", str(lines_run), str(xrays), "--out", str(out), "--workers", "1"])
    assert (tmp_path / "p_lines.csv").exists()


@pytest.mark.slow
def test_the_real_script(lines_run: Path, xrays: Path, tmp_path: Path) -> None:
    (xrays / "bad.jpg").unlink()
    done = run_script("predict.py", "--model", lines_run, xrays, "--out", tmp_path / "p.csv", "--lines", tmp_path / "l")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "l").iterdir())) == 8


def test_mistakes(lines_run: Path, evaluated_run: Path, xrays: Path, tmp_path: Path) -> None:
    """Each before anything is predicted."""
    out = tmp_path / "p.csv"
    cases = [
        (evaluated_run, tmp_path / "l", "have no line decoder, so no lines can be predicted; train with lines="),
        (lines_run, tmp_path / "gone" / "l", f"--lines {tmp_path / 'gone' / 'l'}: a folder is expected, in one that"),
        (lines_run, xrays / "black.png", "a folder is expected"),
    ]
    for model, folder, message in cases:
        with pytest.raises(UserError) as error:
            main(["--model", str(model), str(xrays), "--out", str(out), "--lines", str(folder)])
        assert message in str(error.value)
    with pytest.raises(UserError, match="is the folder of --heatmaps too"):
        main(["--model", str(lines_run), str(xrays), "--lines", str(tmp_path / "a"), "--heatmaps", str(tmp_path / "a")])
    assert not list(tmp_path.glob("p*"))
    with pytest.raises(UserError, match="would be written over"):
        main(["--model", str(lines_run), str(tmp_path / "p_lines.csv"), "--out", str(out)])
    done = run_script("predict.py", "--model", lines_run, "--serve", "--lines", "x")
    assert done.returncode == 2
    assert "--lines does nothing with --serve" in done.stderr
