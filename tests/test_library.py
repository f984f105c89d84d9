"""The package as a library: importing it changes nothing of the process that does so."""

import subprocess
import sys
from pathlib import Path

import pytest

import catheters

PROGRAM = """
import importlib, os, signal, sys, warnings

# What other libraries do when they are imported is theirs.
for name in ("torch", "torchvision", "timm", "albumentations", "cv2", "pandas", "pydicom", "sklearn.metrics", "captum",
             "matplotlib", "pytorch_pfn_extras", "warmup_scheduler", "uvicorn", "starlette", "onnxruntime", "cleanlab",
             "imagehash", "gdcm", "filelock", "PIL.Image", "pydantic", "tqdm"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return list(warnings.filters), dict(os.environ), handlers, sys.excepthook, sys.stdout, sys.stderr

before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
for name, one, other in zip(("filters", "environment", "handlers", "hook", "stdout", "stderr"), before, state()):
    if one != other:
        print(f"importing catheters changes the {name}: {one} {other}")
"""


@pytest.mark.slow
def test_importing_changes_nothing() -> None:
    """Warning filters, environment, signal handlers, streams: as before, whatever part is imported."""
    package = Path(catheters.__file__).parent
    names = [
        ".".join(("catheters", *file.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        for file in sorted(package.rglob("*.py"))
    ]
    assert len(names) > 100
    done = subprocess.run([sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, check=True)
    assert done.stdout == ""
