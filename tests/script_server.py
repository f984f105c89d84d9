"""Scripts in processes that need not import the libraries first, which takes longer than most scripts on a tiny sample.

A server, started once in each process of the tests, imports the third-party libraries, and nothing of ours. For each
script it forks a process, which runs the file as `python FILE ARGUMENTS` would: its own `sys.argv`, folder, environment
and output, and the program imported afresh.
"""

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

LIBRARIES = (
    "albumentations",
    "cv2",
    "huggingface_hub",
    "matplotlib.figure",
    "optuna",
    "pandas",
    "pydantic",
    "pydicom",
    "pytorch_pfn_extras",
    "scipy.stats",
    "sklearn.decomposition",
    "sklearn.metrics",
    "timm",
    "torch",
)
AT_START = ("PYTHON", "OMP_", "MKL_", "LD_", "CUDA_", "HF_", "MPL", "CXX", "TORCH")
"""Beginnings of the names of variables that Python and the libraries read when they start."""

_server: "subprocess.Popen[str] | None" = None
_environment: dict[str, str] = {}


def run(arguments: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run `python FILE ...` or `python -m MODULE ...` in a folder, with its output captured."""
    command = [sys.executable, *arguments]
    server = _start()
    if _at_start(dict(os.environ)) != _at_start(_environment):
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(os.environ),
            "outputs": [f"/proc/{os.getpid()}/fd/{stream.fileno()}" for stream in (output, errors)],
        }
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the server of scripts has ended"
        texts = [_read(stream) for stream in (output, errors)]
    return subprocess.CompletedProcess(command, int(answer), *texts)


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode().replace("\r\n", "\n").replace("\r", "\n")  # as text=True does


def _at_start(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START)}


def _start() -> "subprocess.Popen[str]":
    global _server
    if _server is None:
        _environment.update(os.environ)
        _server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        atexit.register(_end, _server)
    return _server


def _end(server: "subprocess.Popen[str]") -> None:
    server.communicate()


def _serve() -> None:
    for name in LIBRARIES:
        __import__(name)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            _run_script(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _run_script(request: dict[str, Any]) -> None:
    """What Python does with a script, to its exit; never returns."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    files = [nowhere, *(os.open(name, os.O_WRONLY | os.O_APPEND) for name in request["outputs"])]
    for standard, descriptor in enumerate(files):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    is_module = request["arguments"][0] == "-m"
    sys.argv = request["arguments"][is_module:]
    sys.path[0] = request["folder"] if is_module else str(Path(sys.argv[0]).resolve().parent)
    streams = [
        os.fdopen(0, "r", closefd=False),
        os.fdopen(1, "w", closefd=False),
        os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False),
    ]
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    status: Any = 0
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int | None) else 1
        if status == 1 and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        status = 1
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


if __name__ == "__main__":
    _serve()
