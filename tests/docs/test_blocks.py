"""The commands and programs of README, tutorials and how-to pages do what they say, on a small sample.

Blocks that are marked "parse only" are read by test_pages.py.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from catheters.synthetic import generate_sample
from tests import script_server
from tests.conftest import REPOSITORY
from tests.docs.pages import DOCS, blocks, commands

pytestmark = pytest.mark.slow

SMALLER = {
    r"^python (preproc_npy|train|multi_train)\.py .*": r"\g<0> image_size=64 num_folds=2",
    r"^python (train|multi_train)\.py .*": r"\g<0> epochs=1 warmup_epochs=0",
    r"^python -m catheters\.synthetic .*": r"\g<0> --num-images 40 --num-test-images 2 --image-size 128",
}
"""What is added to a page's commands, so that they take seconds."""
OTHERS = [
    file
    for folder in ("how-to", "reference", "explanation")
    for file in sorted((DOCS / folder).glob("*.md"))
    if any(block.reason is None and block.language in ("bash", "python") for block in blocks(file))
]
"""Pages with blocks that are not marked."""
CONFIG = "from catheters import Settings\n\nsettings = Settings("


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`my_x_rays/` as the pages describe it, and `xray.dcm`."""
    folder = tmp_path_factory.mktemp("own")
    generate_sample(folder / "sample", num_images=40, num_test_images=1, image_size=128)
    table = pd.read_csv(folder / "sample/train.csv")
    images = folder / "my_x_rays/images"
    images.mkdir(parents=True)
    for number, uid in enumerate(table["StudyInstanceUID"]):
        with Image.open(folder / f"sample/train/{uid}.jpg") as image:
            image.save(images / f"{number:04}.png")
    labels = {
        "image": [f"{number:04}.png" for number in range(len(table))],
        "patient": table["PatientID"],
        "tube too deep": table["NGT - Normal"],
        "line present": table["CVC - Normal"],
    }
    pd.DataFrame(labels).to_csv(folder / "my_x_rays/labels.csv", index=False)
    write_dicom(folder / "xray.dcm", np.asarray(Image.open(images / "0000.png").convert("L")))
    return folder


def write_dicom(file: Path, pixels: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset.save_as(file, enforce_file_format=True)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the scripts, as the repository's top level."""
    for script in REPOSITORY.glob("*.py"):
        (tmp_path / script.name).symlink_to(script)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    return tmp_path


def run_page(file: Path, folder: Path) -> list[str]:
    """Run a page's blocks in their order, smaller; returns the commands as they were run."""
    run = []
    for number, block in enumerate(blocks(file)):
        if block.reason is not None:
            continue
        if block.language == "python" and block.text.startswith(CONFIG):
            # A test cannot download weights.
            (folder / "mine.py").write_text(block.text.replace("pretrained=True,", "pretrained=False,"))
        elif block.language == "python":
            program = folder / f"block{number}.py"
            program.write_text(block.text)
            execute(f"python {program.name}", folder, f"{file.name}:{block.line}")
        elif block.language == "bash":
            for command in commands(block):
                smaller = command
                for pattern, replacement in SMALLER.items():
                    smaller = re.sub(pattern, replacement, smaller)
                execute(smaller, folder, f"{file.name}:{block.line}: {smaller}")
                run.append(smaller)
    return run


def execute(command: str, folder: Path, what: str) -> None:
    words = shlex.split(command)
    if words[0] == "python" and not {"|", ">", "<", "&&"} & set(words):
        done = script_server.run(words[1:], folder)
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY / "src")}
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{what}\n{done.stdout}\n{done.stderr}"


def test_the_readme(workplace: Path, own_data: Path) -> None:
    shutil.copytree(own_data / "my_x_rays", workplace / "my_x_rays")
    shutil.copy(own_data / "xray.dcm", workplace)
    second = "python train.py --config mine.py run_name=second"
    readme = workplace / "README.md"
    text = (REPOSITORY / "README.md").read_text()
    evaluated = "python evaluate.py saved_models/mine saved_models/second"
    assert evaluated in text
    readme.write_text(text.replace(evaluated, f"{second}\n{evaluated}"))  # the page's readers have one by then
    assert len(run_page(readme, workplace)) == 7
    assert len(pd.read_csv(workplace / "predictions.csv")) == 1
    assert (workplace / "model.onnx").stat().st_size > 1000
    with Image.open(workplace / "heatmap.png") as heatmap:
        assert heatmap.mode == "RGB"
    assert "saved_models/mine" in (workplace / "saved_models/second/report.html").read_text()


def test_the_tutorial_on_own_data(workplace: Path, own_data: Path) -> None:
    shutil.copytree(own_data / "my_x_rays", workplace / "my_x_rays")
    shutil.copy(own_data / "xray.dcm", workplace)
    assert len(run_page(DOCS / "tutorials/own-data.md", workplace)) == 7
    with Image.open(workplace / "two_runs.png") as plot:
        assert plot.size[0] > 300
    assert (workplace / "cache/mine_audit/audit.html").exists()


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.name)
def test_how_to_pages(file: Path, workplace: Path) -> None:
    """Those of their blocks that need nothing but the program."""
    run_page(file, workplace)


def test_the_demo_step_by_step(workplace: Path) -> None:
    """Its commands are those of `make demo`."""
    run = run_page(DOCS / "tutorials/demo.md", workplace)
    assert len(pd.read_csv(workplace / "saved_models/predictions_worklist.csv")) == 2
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    of_make = [line.strip().removeprefix("$(BIN)/") for line in recipe[1].splitlines()]
    assert len(of_make) == len(run)
    assert all(smaller.startswith(command) for smaller, command in zip(run, of_make, strict=True))


@pytest.mark.parametrize("file", sorted((DOCS / "tutorials").glob("*.ipynb")), ids=lambda file: file.name)
def test_the_notebook(file: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert re.findall(r"^(\w+) = ", first.source, re.MULTILINE) == ["NUM_IMAGES", "EPOCHS"]
    first.source = "NUM_IMAGES, EPOCHS = 40, 1"
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources)
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    assert any("95% CI" in output.get("text", "") for output in shown)
    assert (tmp_path / "saved_models/notebook/report.html").exists()
