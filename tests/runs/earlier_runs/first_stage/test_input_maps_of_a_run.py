"""lines="input": a run sees the out-of-fold maps of another run."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from catheters.checkpoints.checkpoint import load_checkpoint
from catheters.config.settings import Settings
from catheters.data.cache.index import CacheError, read_index
from catheters.errors import UserError
from catheters.inference.api import load
from catheters.labels import RANZCR_HEADS
from catheters.runs.datasets import all_samples, load_data, split_samples
from catheters.runs.earlier_runs.first_stage import bytes_of, find_first_stage, with_input_maps, write_maps
from catheters.runs.evaluation.explanations import randomised
from catheters.runs.run import train_run
from catheters.runs.run_folder import check_space
from tests.conftest import run_script
from tests.processes import train_with_ranks
from tests.runs.earlier_runs.first_stage.finders import copy_of_finder, plant

CPU = torch.device("cpu")


def test_no_image_has_a_map_of_a_model_that_saw_it(second: Settings, tmp_path: Path) -> None:
    """Each fold's model is given a mark of its own: in training and validation an image bears that of its own fold."""
    settings, folder = copy_of_finder(second, tmp_path)
    marks = {0: 64, 1: 191}
    for fold, mark in marks.items():
        plant(folder / f"fold{fold}/best.pt", float(np.log(mark / (255 - mark))))
    data = load_data(settings)
    first = find_first_stage(settings, data)
    write_maps(settings, data, first, CPU)
    data = with_input_maps(settings, data, first)
    predicted = pd.read_csv(folder / "predictions.csv", dtype=str).set_index(settings.uid_column)
    for fold in (0, 1):
        train, valid = split_samples(settings, data, fold)
        for samples, is_chosen in ((train, data.folds != fold), (valid, data.folds == fold)):
            uids = data.uids[is_chosen]
            assert len(samples) == len(uids) > 5
            for position, uid in enumerate(uids.tolist()):
                # Of the model whose validation fold the image was in: the others had it in training.
                own = int(predicted.loc[uid, "fold"])
                channels = samples[0, position]["images"]
                assert channels.shape == (1 + 8, 32, 32)
                assert (channels[1:] == marks[own]).all()
    assert first.members(0)[0].file == folder / "fold0/best.pt"
    everything = all_samples(settings, data)
    assert len({int(everything[0, position]["images"][1, 0, 0]) for position in range(len(everything))}) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param(
            {"classifier": "attention", "heads": dict(RANZCR_HEADS), "mixup_alpha": 0.4, "ema_decay": 0.9},
            marks=pytest.mark.slow,
        ),
        pytest.param({"augment_on": "device", "accumulation_steps": 2, "batch_size": 4}, marks=pytest.mark.slow),
    ],
    ids=["linear", "attention, mixup, EMA", "device, accumulation"],
)
def test_a_checkpoint_predicts_by_itself_what_validation_did(second: Settings, changes: dict[str, Any]) -> None:
    """The model of the fold finds its maps itself, so that pixels suffice; but for the cache's bytes it is equal."""
    settings = dataclasses.replace(second, **changes)
    train_run(settings, fresh=False)
    data = load_data(settings)
    for fold in (0, 1):
        _, valid = split_samples(settings, data, fold)
        model = load_checkpoint(settings.run_folder / f"fold{fold}/best.pt").model
        images = torch.stack([valid[0, position]["images"] for position in range(len(valid))])
        assert images.shape[1] == 1
        with torch.inference_mode():
            outputs = model(images, with_lines=True)
            probabilities = model.probabilities(outputs).numpy()
            assert torch.equal(model(images).logits, outputs.logits)
        written = pd.read_csv(settings.run_folder / f"fold{fold}/predictions.csv")
        assert np.abs(written[list(settings.label_columns)].to_numpy() - probabilities).max() < 2e-3
        assert outputs.line_logits is not None and outputs.line_logits.shape[1:] == (4, 16, 16)
        with torch.inference_mode():
            assert (
                randomised(load_checkpoint(settings.run_folder / f"fold{fold}/best.pt"), 0)(images)
                .logits.isfinite()
                .all()
            )


def test_the_maps_are_what_the_first_stage_says(second: Settings) -> None:
    """In bytes, and written once: a second run of other seed takes them as they are."""
    data = load_data(second)
    first = find_first_stage(second, data)
    write_maps(second, data, first, CPU)
    maps = np.load(first.cache_file).reshape(len(data.rows), 8, 16, 16)
    _, valid = split_samples(second, data, 1)
    model = first.checkpoints[1].model
    with torch.inference_mode():
        outputs = model(torch.stack([valid[0, k]["images"] for k in range(len(valid))]), with_lines=True)
    assert outputs.line_logits is not None and outputs.tip_logits is not None
    expected = 255 * torch.sigmoid(torch.cat([outputs.line_logits, outputs.tip_logits], 1).double()).numpy()
    assert np.abs(maps[data.folds == 1] - expected).max() < 0.51
    before = first.cache_file.stat()
    other = dataclasses.replace(second, seed=7, fold_seed=0, run_name="other")
    again = find_first_stage(other, load_data(other))
    write_maps(other, data, again, CPU)
    assert again.cache_file == first.cache_file and again.cache_file.stat() == before


def test_runs_of_other_labels_see_the_same_maps(second: Settings, tmp_path: Path) -> None:
    """Maps depend on pixels, and on whose models find them; what else is learnt is another run's data all the same."""
    data = load_data(second)
    first = find_first_stage(second, data)
    write_maps(second, data, first, CPU)
    predicted = pd.read_csv(Path(str(second.first_stage)) / "predictions.csv", dtype=str).set_index(second.uid_column)
    table = pd.read_csv(Path(second.dataset_folder) / "train.csv", dtype=str)
    table = table.assign(own_fold=table[second.uid_column].map(predicted["fold"]), weight="2.0")
    table["CVC - Normal"] = table["CVC - Normal"].map({"0": "1", "1": "0"})
    table.to_csv(tmp_path / "others.csv", index=False)
    of_table = {"label_table": str(tmp_path / "others.csv"), "fold_column": "own_fold", "weight_column": "weight"}
    for changes in (of_table, {"all_data": True}):
        other = dataclasses.replace(second, run_name="other", **changes)
        its_data = load_data(other)
        its_first = find_first_stage(other, its_data)
        assert its_first.cache_file == first.cache_file
        assert its_data.fingerprint != data.fingerprint
        with_maps = [with_input_maps(second, data, first), with_input_maps(other, its_data, its_first)]
        assert with_maps[0].fingerprint != with_maps[1].fingerprint


def test_a_killed_cache_of_maps_is_resumed(second: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(second, valid_batch_size=3)
    data = load_data(settings)
    first = find_first_stage(settings, data)
    write_maps(settings, data, first, CPU)
    whole = first.cache_file.read_bytes()
    for file in (first.cache_file, first.cache_file.with_suffix(".json")):
        file.unlink()
    from catheters.data.cache.partial import CachePart

    write, rows = CachePart.write, []

    def interrupted(self: CachePart, row: int, *of_row: Any) -> None:
        if len(rows) == 7:
            raise KeyboardInterrupt
        rows.append(row)
        write(self, row, *of_row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CachePart, "write", interrupted)
        write_maps(settings, data, first, CPU)
    assert not first.cache_file.exists()
    assert len(first.cache_file.with_suffix(".npy.journal").read_text().splitlines()) == 1 + 7
    write_maps(settings, data, first, CPU)
    assert first.cache_file.read_bytes() == whole


def test_damaged_maps_are_found(second: Settings) -> None:
    data = load_data(second)
    first = find_first_stage(second, data)
    write_maps(second, data, first, CPU)
    content = bytearray(first.cache_file.read_bytes())
    content[-5] ^= 1
    first.cache_file.write_bytes(content)
    _, valid = split_samples(second, with_input_maps(second, data, first), int(data.folds[-1]))
    with pytest.raises(UserError, match=r"finder_.*damaged: row 39") as error:
        valid[0, len(valid) - 1]
    remedy = f"delete {first.cache_file} and its {first.cache_file.stem}.json, and the same command writes it again"
    assert remedy in str(error.value) and "preproc_npy.py" not in str(error.value)
    index = first.cache_file.with_suffix(".json")
    index.write_text("{}")
    with pytest.raises(UserError) as error:
        with_input_maps(second, data, first)
    assert remedy in str(error.value)


def test_maps_without_their_file_are_written_again(second: Settings) -> None:
    """An index alone is no cache, and one of maps is none to be named in place of one of images."""
    data = load_data(second)
    first = find_first_stage(second, data)
    write_maps(second, data, first, CPU)
    whole = first.cache_file.read_bytes()
    with pytest.raises(CacheError) as error:
        read_index(second.cache_file.with_name("other_32.npy"))
    assert f"({second.cache_folder} holds tiny_32.npy: set image_size or cache_name)" in str(error.value)
    first.cache_file.unlink()
    write_maps(second, data, first, CPU)
    assert first.cache_file.read_bytes() == whole


def test_the_disk_has_room_for_the_first_stage_too(second: Settings) -> None:
    """Each checkpoint gets the model of its fold along, or those of all."""
    data = load_data(second)
    files = [Path(str(second.first_stage)) / f"fold{fold}/best.pt" for fold in (0, 1)]
    sizes = [sum(value.nbytes for value in torch.load(file, weights_only=True)["model"].values()) for file in files]
    assert min(sizes) > 100_000
    assert bytes_of(find_first_stage(second, data)) == max(sizes)
    everything = dataclasses.replace(second, all_data=True)
    assert bytes_of(find_first_stage(everything, load_data(everything))) == sum(sizes)
    assert bytes_of(None) == 0
    room = shutil.disk_usage(second.cache_folder).free
    check_space(second, room // 4)
    for ema_decay, too_many in ((None, room), (0.9, room // 2)):
        settings = dataclasses.replace(second, ema_decay=ema_decay)
        with pytest.raises(UserError, match="snapshots and checkpoints need"):
            check_space(settings, room // 4, too_many)


@pytest.mark.slow
def test_all_data_and_new_images(second: Settings, tmp_path: Path) -> None:
    """A model of all images finds the maps of a new one by all models of the first stage, on average."""
    settings = dataclasses.replace(second, all_data=True)
    train_run(settings, fresh=False)
    checkpoint = load_checkpoint(settings.run_folder / "seed0/final.pt")
    assert checkpoint.model.first_stage is not None and len(checkpoint.model.first_stage.members) == 2
    xray = next((Path(settings.dataset_folder) / "test").glob("*.jpg"))
    result = load(settings.run_folder)(xray)
    assert set(result.tips) == {"ETT", "NGT", "CVC", "Swan Ganz"}
    assert np.isfinite(result.heatmap("CVC - Normal")).all()
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        mean = checkpoint.model(images, with_lines=True).line_logits
        members = [member(images, with_lines=True).line_logits for member in checkpoint.model.first_stage.members]
    assert mean is not None
    expected = np.mean([torch.sigmoid(of_member.double()).numpy() for of_member in members], axis=0)
    np.testing.assert_allclose(torch.sigmoid(mean.double()).numpy(), expected, atol=1e-5)
    out = tmp_path / "lines"
    csv = tmp_path / "out.csv"
    predicted = run_script(
        *("predict.py", "--model", settings.run_folder, xray.parent, "--lines", out, "--out", csv, "--device", "cpu")
    )
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "out_lines.csv").is_file()
    exported = settings.run_folder / "model.onnx"
    written = run_script("predict.py", "--model", settings.run_folder, "--export", exported)
    assert "probabilities, lines, tips" in written.stdout and exported.is_file(), written.stderr


@pytest.mark.slow
def test_ranks_and_a_resumed_run(second: Settings, tmp_path: Path) -> None:
    """Two ranks write the maps once; a run that is made longer ends as one that was long from the start."""
    train_with_ranks(dataclasses.replace(second, run_name="ranks", folds=(0,)), tmp_path, 2)
    assert len(list(Path(second.cache_folder).glob("*finder*.npy"))) == 1
    whole = dataclasses.replace(second, run_name="whole", folds=(0,), epochs=2, mixup_alpha=0.2)
    train_run(whole, fresh=False)
    short = dataclasses.replace(whole, run_name="resumed", epochs=1)
    train_run(short, fresh=False)
    train_run(dataclasses.replace(short, epochs=2), fresh=False)
    of_whole, of_resumed = (
        torch.load(Path(second.saved_models_folder) / name / "fold0/best.pt", weights_only=True)["model"]
        for name in ("whole", "resumed")
    )
    assert of_whole.keys() == of_resumed.keys() and any(name.startswith("first_stage.") for name in of_whole)
    assert all(torch.equal(of_whole[name], of_resumed[name]) for name in of_whole)


def test_another_first_stage_is_no_resume(second: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(second, folds=(0,))
    train_run(settings, fresh=False)
    other, folder = copy_of_finder(settings, tmp_path)
    plant(folder / "fold1/best.pt", 0.0)
    with pytest.raises(UserError, match="was trained on other images, labels, folds, weights, lines or teacher"):
        train_run(other, fresh=False)
