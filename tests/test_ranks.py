"""Scripts that torchrun has started: each rank does a share, and the result is that of one process."""

import dataclasses
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.evaluation_options import main as evaluate
from catheters.commands.predict import main as predict
from catheters.commands.preproc_options import main as preproc
from catheters.config.settings import Settings
from catheters.data.cache import partial, writer
from catheters.data.cache.index import read_index
from catheters.data.tables.label_table import read_label_table
from catheters.runs.build import build_table_source
from tests import hangs
from tests.conftest import run_script
from tests.processes import Command, environments_of_ranks

CACHE = ("tiny_32.npy", "tiny_32.json")
PREDICTIONS = ("p.csv", "p_details.csv", "p_worklist.csv")


def start(main: Callable[[list[str]], int], arguments: Sequence[Sequence[str | Path]], folder: Path) -> list[Command]:
    """A rank per list of arguments, with its output in `out<rank>`."""
    folder.mkdir(exist_ok=True)
    return [
        Command(lambda _, given=given: main(list(map(str, given))), folder / f"out{rank}", environment)
        for rank, (given, environment) in enumerate(zip(arguments, environments_of_ranks(len(arguments)), strict=True))
    ]


def run(main: Callable[[list[str]], int], arguments: Sequence[str | Path], count: int, folder: Path) -> list[str]:
    """So many ranks of one command until all have finished with status 0; what each has printed."""
    ranks = start(main, [arguments] * count, folder)
    statuses = [rank.wait() for rank in ranks]
    assert statuses == [0] * count, "\n".join(rank.text for rank in ranks)
    return [rank.text for rank in ranks]


def kill_in_the_midst(
    main: Callable[[list[str]], int],
    arguments: Sequence[str | Path],
    count: int,
    folder: Path,
    num_lines: Callable[[], int],
    to_remove: Path | None,
) -> list[Command]:
    """Ranks of which rank 1 is killed once some lines are in the journals.

    Where this process is so late that all is done by then, once more from the beginning.
    """
    for attempt in range(5):
        ranks = start(main, [arguments] * count, folder.with_name(f"{folder.name}{attempt}"))
        hangs.wait_until(lambda: num_lines() >= 9 or not is_running(ranks[0]), lambda: ranks[0].text)  # noqa: B023
        ranks[1].signal(signal.SIGKILL)
        if ranks[1].wait() == -signal.SIGKILL and is_running(ranks[0]):
            return ranks
        for rank in (ranks[0], *ranks[2:]):
            rank.wait()
        if to_remove is not None:
            shutil.rmtree(to_remove)
    raise AssertionError("five times all was done before the kill")


def is_running(rank: Command) -> bool:
    """Without collecting its exit status."""
    return Path(f"/proc/{rank.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def contents(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def to_cache(settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path) -> tuple[list[str], Path]:
    """The arguments of preproc_npy.py, and the folder of the cache."""
    config = write_config(settings)
    return ["--config", str(config)], Path(settings.cache_folder)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_the_cache_of_several_ranks_is_that_of_one(
    to_cache: tuple[list[str], Path], tmp_path: Path, count: int
) -> None:
    arguments, folder = to_cache
    outputs = run(preproc, arguments, count, tmp_path / "ranks")
    found = contents(folder, CACHE)
    assert f"a share of 1/{count}" not in outputs[0]  # of so short a work a log says nothing
    assert "40 images, grey mean " in outputs[0]
    assert outputs[1:] == [""] * (count - 1)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CACHE, "tiny_32.lock"])
    shutil.rmtree(folder)
    assert preproc(arguments) == 0
    assert contents(folder, CACHE) == found
    # What stands is up to date for all of them.
    assert "is up to date" in run(preproc, arguments, count, tmp_path / "again")[0]


@pytest.mark.slow
def test_a_killed_rank_ends_all_and_the_same_command_resumes(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    """By more ranks; tests/stress/kill_ranks.py kills at many moments."""
    large = dataclasses.replace(settings, image_size=1024)  # rows that take a moment
    arguments, folder = ["--config", str(write_config(large))], Path(settings.cache_folder)
    names = ("tiny_1024.npy", "tiny_1024.json")
    assert preproc(arguments) == 0
    alone = contents(folder, names)
    shutil.rmtree(folder)
    ranks = kill_in_the_midst(preproc, arguments, 2, tmp_path / "killed", lambda: sum_of_lines(folder), folder)
    ranks[0].signal(signal.SIGTERM)  # as torchrun does then
    assert ranks[0].wait() not in (0, -signal.SIGKILL), ranks[0].text
    assert "stopped, since rank 1 died; torchrun's report has the signal" in ranks[0].text.splitlines()[-1]
    assert sum("error" in line for line in ranks[0].text.splitlines()) == 1, ranks[0].text
    assert "resuming an unfinished build: " in run(preproc, arguments, 3, tmp_path / "resumed")[0]
    assert contents(folder, names) == alone
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "tiny_1024.lock"])


def sum_of_lines(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.npy.journal*"))


@pytest.mark.slow
def test_journals_of_killed_launches(
    settings: Settings, write_config: Callable[[Settings], Path], tmp_path: Path
) -> None:
    """All rows written; a row that failed and can be read now; more journals than there are ranks."""
    config = ["--config", str(write_config(settings))]
    folder = Path(settings.cache_folder)
    assert preproc(config) == 0
    alone = contents(folder, CACHE)
    cache_file = folder / CACHE[0]
    journal = folder / "tiny_32.npy.journal"
    key = writer._key(read_label_table(build_table_source(settings)), build_preprocessing(settings)).encode()
    lines = [partial._line(row, entry) for row, entry in enumerate(read_index(cache_file).rows)]
    failed = partial._line(5, dataclasses.replace(read_index(cache_file).rows[5], reason="away", digest=""))
    for number, (of_0, of_1, of_3, count) in enumerate(
        (
            (lines, [], [], 2),
            (lines[:5], [failed, *lines[6:20]], lines[20:], 2),
            (lines[:30:2], lines[1:30:2], [failed], 1),
        )
    ):
        cache_file.rename(folder / "tiny_32.npy.part")
        (folder / CACHE[1]).unlink()
        for file, of_rank in ((journal, of_0), (Path(f"{journal}.1"), of_1), (Path(f"{journal}.3"), of_3)):
            file.write_bytes(key + b"\n" + b"".join(of_rank))
        output = run(preproc, config, count, tmp_path / f"ranks{number}")[0]
        assert f"resuming an unfinished build: {(40, 39, 29)[number]} X-rays done" in output
        assert contents(folder, CACHE) == alone
        assert sorted(path.name for path in folder.iterdir()) == sorted([*CACHE, "tiny_32.lock"])


@pytest.mark.slow
def test_ranks_that_do_not_fit_are_refused(
    settings: Settings, write_config: Callable[[Settings], Path], sample_folder: Path, tmp_path: Path
) -> None:
    """Another setting, table or folder than rank 0: all end, and each says why."""
    config = str(write_config(settings))
    fewer = tmp_path / "fewer.csv"
    rows = (sample_folder / "train.csv").read_text().splitlines(keepends=True)
    fewer.write_text("".join(rows[:-1]))
    for number, (override, reason) in enumerate(
        (
            ("crop_borders=True", "has another setting than rank 0"),
            (f"label_table={fewer}", "has another setting than rank 0"),
            ("folds=[0]", "has another setting than rank 0"),
            (f"cache_folder={tmp_path / 'elsewhere'}", "rank 0 has made it, and it is not to be seen from here"),
        )
    ):
        ranks = start(preproc, [["--config", config], ["--config", config, override]], tmp_path / f"ranks{number}")
        assert 0 not in [rank.wait() for rank in ranks]
        assert reason in ranks[1].text, ranks[1].text
        assert "error" in ranks[0].text and "Traceback" not in ranks[0].text + ranks[1].text
        shutil.rmtree(settings.cache_folder, ignore_errors=True)
    for main, arguments, reason in (
        (preproc, ["--config", config, "--audit"], "--audit: one process does it; start it without torchrun"),
        (evaluate, [str(tmp_path)], "evaluate.py: one process does it; start it without torchrun"),
    ):
        for rank in start(main, [arguments] * 2, tmp_path / "one"):
            assert rank.wait() == 2
            assert reason in rank.text


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_predictions_of_several_ranks_are_those_of_one(
    evaluated_run: Path, sample_folder: Path, tmp_path: Path, count: int
) -> None:
    """Byte for byte, an unreadable image and the worklist included."""
    images = tmp_path / "images"
    shutil.copytree(sample_folder / "train", images)
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    for number in range(3):  # of noise: its probabilities have other last digits in a batch of another size
        noise = np.random.default_rng(number).integers(0, 256, (90, 70), dtype=np.uint8)
        cv2.imwrite(str(images / f"noise{number}.png"), noise)
    arguments = ["--model", str(evaluated_run), str(images), "--worklist", "--batch-size", "3", "--out"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    assert predict([*arguments, str(alone / "p.csv")]) == 1
    ranks = start(predict, [[*arguments, str(together / "p.csv")]] * count, tmp_path / "ranks")
    assert [rank.wait() for rank in ranks] == [0] * count, ranks[0].text  # another one torchrun takes for a failure
    assert "1 of 44 images not predicted" in ranks[0].text
    assert [rank.text for rank in ranks[1:]] == [""] * (count - 1)
    assert contents(together, PREDICTIONS) == contents(alone, PREDICTIONS)
    assert sorted(path.name for path in together.iterdir()) == sorted(PREDICTIONS)


@pytest.mark.slow
def test_killed_predictions_are_resumed_by_any_number_of_ranks(
    evaluated_run: Path, sample_folder: Path, tmp_path: Path
) -> None:
    arguments = ["--model", str(evaluated_run), str(sample_folder / "train"), "--tta", "--batch-size", "1", "--out"]
    assert predict([*arguments, str(tmp_path / "alone.csv")]) == 0
    out = tmp_path / "p.csv"

    def num_lines() -> int:
        return sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("p.csv.unfinished*[d0-9]"))

    ranks = kill_in_the_midst(predict, [*arguments, str(out)], 3, tmp_path / "ranks", num_lines, None)
    left = (ranks[0], ranks[2])
    for rank in left:
        rank.signal(signal.SIGTERM)  # as torchrun does then
    for rank in left:
        assert rank.wait() not in (0, -signal.SIGKILL), rank.text
        assert "stopped, since rank 1 died; torchrun's report has the signal" in rank.text.splitlines()[-1]
    parts = [f"p.csv.unfinished{end}" for end in ("", ".1", ".2")]
    assert set(parts) <= {path.name for path in tmp_path.glob("p.csv*")}
    result = run_script("predict.py", *arguments, out)
    assert result.returncode == 0, result.stderr
    assert "were predicted before: resuming from there" in result.stdout
    assert out.read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert [path.name for path in tmp_path.glob("p.csv*")] == ["p.csv"]


@pytest.mark.slow
def test_an_out_that_only_rank_0_sees_is_refused(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", evaluated_run, sample_folder / "test", "--out"]
    (tmp_path / "other").mkdir()
    ranks = start(
        predict, [[*arguments, tmp_path / "p.csv"], [*arguments, tmp_path / "other" / "p.csv"]], tmp_path / "ranks"
    )
    assert 0 not in [rank.wait() for rank in ranks]
    assert "give --out in a folder that all machines share" in ranks[1].text
    for option in ("--serve", "--export"):
        given = [option] if option == "--serve" else [option, str(tmp_path / "m.onnx")]
        (rank, _) = start(predict, [["--model", evaluated_run, *given]] * 2, tmp_path / "one")
        assert rank.wait() == 2
        assert f"{option}: one process does it" in rank.text
