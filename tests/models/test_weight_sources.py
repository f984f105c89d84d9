"""Weights by timm's names of their sources: a folder, a model on the Hub, from the cache and without a network."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.models.backbone import create_backbone
from catheters.models.weight_sources import USUAL_NAMES, find_weights
from catheters.runs.datasets import load_data
from catheters.runs.earlier_runs.weights import check_weights, sources_of_weights
from catheters.runs.preflight import check_choices
from tests.models.test_backbone import create
from tests.models.test_weights import Bomb

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STEMS = {
    "test_vit": "patch_embed.proj.weight",
    "test_convnext": "stem.0.weight",
    "test_efficientnet": "conv_stem.weight",
}
SIZE = 160
"""Pixels of the test models' own images, at which no position embedding is resampled."""
QUICK = 10.0
"""Seconds; the retries of huggingface_hub alone take 23 for each name of a file."""


def make_model(name: str = "test_efficientnet", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=5)


def saved(name: str, folder: Path, seed: int = 0) -> dict[str, Tensor]:
    """A folder as timm writes it, of a model with random weights, which are returned."""
    model = make_model(name, seed)
    save_for_hf(model, str(folder), safe_serialization="both")
    return dict(model.state_dict())


def put_into_cache(cache: Path, repo_id: str, files: dict[str, bytes], ref: str = "main") -> None:
    """As huggingface_hub's page "Understand caching" lays it out: blobs by digest, snapshots of links, refs."""
    folder = cache / f"models--{repo_id.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / ref).write_text(COMMIT)
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / digest).write_bytes(content)
        (folder / "snapshots" / COMMIT / name).symlink_to(Path("../../blobs") / digest)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """huggingface_hub's cache, which is empty; it has read HF_HOME when it was imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    return tmp_path / "home/hub"


def connect(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """What HF_ENDPOINT and HF_HUB_OFFLINE=0 say to huggingface_hub when it is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


class Hub(ThreadingHTTPServer):
    """Answers as the Hub does: the list of a model's files, their content, and a code for what is not there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        is_list = self.path.startswith("/api/models/")
        parts = self.path.removeprefix("/api/models").split("/")
        files = self.server.files.get("/".join(parts[1:3]))
        if files is None:
            self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif is_list and parts[3:] not in ([], ["revision", "v1"]):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif is_list:
            listed = {"id": "/".join(parts[1:3]), "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            self.answer(200, json.dumps(listed).encode(), {})
        else:
            content = files[parts[-1]]
            digest = hashlib.sha256(content).hexdigest()
            self.answer(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Not on stderr."""


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        connect(monkeypatch, server.endpoint)
        try:
            yield server
        finally:
            huggingface_hub.close_session()
            server.shutdown()
            thread.join()


def assert_equal(taken: nn.Module, expected: dict[str, Tensor]) -> None:
    weights = taken.state_dict()
    assert weights
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("left", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_as_timm_saves_it(tmp_path: Path, name: str, left: str) -> None:
    weights = saved(name, tmp_path / "folder")
    for file in {"model.safetensors", "pytorch_model.bin"} - {left}:
        (tmp_path / "folder" / file).unlink()
    backbone = create(name, f"local-dir:{tmp_path}/folder", SIZE)
    assert_equal(backbone, dict(create(name, f"{tmp_path}/folder/{left}", SIZE).state_dict()))
    for key, value in backbone.state_dict().items():
        expected = weights[key].double().sum(dim=1, keepdim=True).float() if key == STEMS[name] else weights[key]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6 if key == STEMS[name] else 0)


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    """The usual names in timm's order; another name where it is the only one; never one of several at random."""
    assert list(USUAL_NAMES[:-2]) == list(timm.models._hub._PREFERRED_FILES)
    value = f"local-dir:{tmp_path}"
    with pytest.raises(
        UserError, match=r"^pretrained=local-dir:\S+: no file of weights; .* is expected; there is no file in it$"
    ):
        find_weights(value)
    (tmp_path / "README.md").touch()
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(UserError, match=r"no file of weights; model\.safetensors or .*; it has: README\.md$"):
        find_weights(value)
    (tmp_path / "chest.pth").touch()
    assert find_weights(value).file == tmp_path / "chest.pth"
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(UserError, match=r"several files of weights: chest\.pth, other\.safetensors; set pretrained to"):
        find_weights(value)
    for name in reversed(USUAL_NAMES):
        (tmp_path / name).touch()
        assert find_weights(value).file == tmp_path / name
    with pytest.raises(UserError, match=r"pretrained=local-dir:\S+/absent: \S+/absent: no such folder"):
        find_weights(f"{value}/absent")
    with pytest.raises(UserError, match=r"chest\.pth: is a file, whose path alone is expected"):
        find_weights(f"{value}/chest.pth")


def test_a_folder_of_another_model(tmp_path: Path) -> None:
    saved("test_vit", tmp_path)
    with pytest.raises(
        UserError, match=r"not weights of test_convnext: .*; its config\.json says backbone_model=test_vit"
    ):
        create("test_convnext", f"local-dir:{tmp_path}", SIZE)
    for content in ('{"architectures": ["Dinov2Model"]}', "[1]", "no JSON", '{"architecture": 3}'):
        (tmp_path / "config.json").write_text(content)
        assert find_weights(f"local-dir:{tmp_path}").architecture is None


def test_a_model_with_the_same_tensors_is_warned_of(
    cached: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As tf_efficientnet_b0 has those of efficientnet_b0, with other padding; a tag is no other model."""
    saved(cached.backbone_model, tmp_path / "folder")
    file = tmp_path / "folder/config.json"
    config = json.loads(file.read_text())
    settings = dataclasses.replace(cached, pretrained=f"local-dir:{tmp_path}/folder")
    for architecture, is_warned in (("tf_other", True), (f"{cached.backbone_model}.r160", False)):
        file.write_text(json.dumps({**config, "architecture": architecture}))
        check_weights(settings, load_data(settings))
        assert ("its config.json says backbone_model=tf_other, here it is" in capsys.readouterr().err) == is_warned


def test_each_fold_and_seed_has_its_own_folder(settings: Settings, tmp_path: Path) -> None:
    for number in (0, 1):
        saved("test_vit", tmp_path / f"of{number}", seed=number)
    settings = dataclasses.replace(settings, folds=(0, 1), seed=1, pretrained=f"local-dir:{tmp_path}/of{{fold}}")
    of_folds = sources_of_weights(settings)
    assert {fold: source.file for fold, source in of_folds.items()} == {
        fold: tmp_path / f"of{fold}/model.safetensors" for fold in (0, 1)
    }
    of_seeds = dataclasses.replace(settings, all_data=True, seeds=(1, 0), pretrained=f"local-dir:{tmp_path}/of{{seed}}")
    assert [source.file.parent.name for source in sources_of_weights(of_seeds).values()] == ["of1", "of0"]
    shutil.rmtree(tmp_path / "of1")
    for of in (settings, of_seeds):
        with pytest.raises(UserError, match=r"of1: no such folder"):
            check_choices(of)


def test_a_folder_of_the_run_itself(settings: Settings, tmp_path: Path) -> None:
    (settings.run_folder / "fold0").mkdir(parents=True)
    (settings.run_folder / "settings.json").touch()
    for place in (settings.run_folder, settings.run_folder / "fold0"):
        with pytest.raises(SettingsError, match=r"pretrained=local-dir:\S+ is of this very run"):
            check_choices(dataclasses.replace(settings, pretrained=f"local-dir:{place}"))


def test_no_pickle_runs(tmp_path: Path, cache: Path) -> None:
    bomb = {"state_dict": make_model().state_dict(), "bomb": Bomb()}
    torch.save(bomb, tmp_path / "pytorch_model.bin")
    put_into_cache(cache, "some/bomb", bytes_of_file(tmp_path / "pytorch_model.bin"))
    for value in (f"local-dir:{tmp_path}", "hf-hub:some/bomb"):
        with pytest.raises(UserError, match=rf"^pretrained={value}: .*pytorch_model\.bin: .* it holds exec, which cou"):
            create("test_efficientnet", value, SIZE)


def bytes_of_file(file: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes()}


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("kept", ["model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"])
def test_a_model_of_the_cache_needs_no_network(tmp_path: Path, cache: Path, name: str, kept: str) -> None:
    """Bit by bit as the same file by its path; conftest.py has switched the network off."""
    saved(name, tmp_path / "folder")
    files = bytes_of(tmp_path / "folder")
    content = files["pytorch_model.bin" if kept.endswith(".bin") else "model.safetensors"]
    (tmp_path / kept).write_bytes(content)
    put_into_cache(cache, "some/x-ray", {"config.json": files["config.json"], kept: content})
    expected = dict(create(name, str(tmp_path / kept), SIZE).state_dict())
    for value in ("hf-hub:some/x-ray", "hf_hub:some/x-ray", f"hf-hub:some/x-ray@{COMMIT}", "hf-hub:some/x-ray@main"):
        shape = (SIZE, SIZE)
        backbone, origin = create_backbone(name, pretrained=value, image_shape=shape, is_pooled=True)
        assert_equal(backbone, expected)
        assert f"{len(expected)} of its {len(expected)} tensors taken from {value} ({kept} of commit 0123456789ab)" in (
            origin
        )
        assert find_weights(value, may_download=False).architecture == name


def test_a_part_of_a_snapshot_is_enough(tmp_path: Path, cache: Path) -> None:
    """As `hf download --include` leaves it: the list of all files is there, most of the files are not."""
    saved("test_vit", tmp_path / "folder")
    put_into_cache(cache, "some/x-ray", bytes_of_file(tmp_path / "folder/model.safetensors"))
    trees = cache / "models--some--x-ray/trees"
    trees.mkdir()
    sizes = {"model.safetensors": 3, "README.md": 7}
    entries = {name: {"size": size, "blob_id": name} for name, size in sizes.items()}
    (trees / f"{COMMIT}.json").write_text(json.dumps(entries))
    assert find_weights("hf-hub:some/x-ray").file.name == "model.safetensors"


def test_a_download_from_the_hub(tmp_path: Path, hub: Hub, cache: Path) -> None:
    """Of the file and config.json alone, once; then the cache is asked, whatever becomes of the network."""
    weights = saved("test_vit", tmp_path / "folder")
    hub.files["some/x-ray"] = {**bytes_of(tmp_path / "folder"), "optimizer.bin": b"of no use"}
    value = "hf-hub:some/x-ray"
    with pytest.raises(UserError, match=r"some/x-ray is not in the cache"):
        find_weights(value, may_download=False)
    assert not hub.requests
    source = find_weights(value)
    assert source.file.read_bytes() == hub.files["some/x-ray"]["model.safetensors"]
    assert source.file.is_relative_to(cache)
    assert {file.name for file in source.file.parent.iterdir()} == {"model.safetensors", "config.json"}
    assert source.architecture == "test_vit"
    num_requests = len(hub.requests)
    backbone = create("test_vit", value, SIZE)
    assert torch.equal(backbone.get_parameter("pos_embed"), weights["pos_embed"])
    assert len(hub.requests) == num_requests
    assert find_weights(f"{value}@v1").file == source.file
    assert any("/some/x-ray/revision/v1" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "some/absent",
            "the Hub has no model some/absent, or it is private or gated; check its name, or log in with `hf auth",
        ),
        ("some/empty", "no file of weights; model.safetensors or pytorch_model.bin is expected; there is no file"),
        ("some/text", "no file of weights; .* is expected; it has: README.md, sub/model.safetensors"),
        ("some/parts", "several files of weights: model-1-of-2.safetensors, model-2-of-2.safetensors; set pretrained"),
        ("some/text@v9", "some/text has no branch, tag or commit v9"),
        ("a/b/c", "OWNER/REPO or OWNER/REPO@REVISION is expected"),
        ("", "OWNER/REPO or OWNER/REPO@REVISION is expected"),
    ],
)
def test_what_the_hub_does_not_have(settings: Settings, hub: Hub, value: str, message: str) -> None:
    """Said before the run, in one line, and at once."""
    hub.files |= {"some/empty": {}, "some/text": {"README.md": b"", "sub/model.safetensors": b""}}
    hub.files["some/parts"] = {f"model-{number}-of-2.safetensors": b"" for number in (1, 2)}
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"^pretrained=hf-hub:{value}: {message}") as error:
        check_choices(dataclasses.replace(settings, pretrained=f"hf-hub:{value}"))
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < QUICK


@pytest.mark.parametrize("is_offline", [True, False])
def test_no_network_is_said_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch, is_offline: bool) -> None:
    """With how to bring the weights; where there is a cache, it has another model."""
    put_into_cache(cache, "some/x-ray", {"config.json": b"{}"})
    if not is_offline:
        connect(monkeypatch, "http://127.0.0.1:9")  # "discard", where nobody listens
    start = time.monotonic()
    for value in ("hf-hub:some/x-ray", "hf-hub:some/x-ray@v1", True):
        with pytest.raises(
            UserError, match=rf"^pretrained={value}: the weights of \S+ could not be downloaded"
        ) as error:
            create("test_vit", value, SIZE)
        message = str(error.value)
        assert "\n" not in message
        named = "timm/test_vit.r160_in1k" if value is True else "some/x-ray"
        of_revision = " --revision v1" if str(value).endswith("@v1") else ""
        name = named.partition("/")[2]
        assert f"run `hf download {named}{of_revision} --local-dir {name}` where there is one" in message
        assert message.endswith(f"set pretrained=local-dir:{name}; pretrained=False starts from random weights")
    assert time.monotonic() - start < QUICK
    huggingface_hub.close_session()


def test_weights_of_timm_from_the_cache(tmp_path: Path, cache: Path) -> None:
    """pretrained=True finds what `hf-hub:` has left there, and the other way round."""
    weights = saved("test_efficientnet", tmp_path / "folder")
    put_into_cache(cache, "timm/test_efficientnet.r160_in1k", bytes_of(tmp_path / "folder"))
    by_timm = create("test_efficientnet", True, SIZE)
    assert torch.equal(by_timm.get_parameter("bn1.weight"), weights["bn1.weight"])
    assert_equal(
        by_timm, dict(create("test_efficientnet", "hf-hub:timm/test_efficientnet.r160_in1k", SIZE).state_dict())
    )


@pytest.mark.slow
def test_a_process_of_its_own(tmp_path: Path) -> None:
    """By the variables that a user sets: HF_HOME, and an endpoint that cannot be reached."""
    weights = dict(make_model("test_vit").state_dict())
    save_file(weights, tmp_path / "model.safetensors")
    put_into_cache(tmp_path / "home/hub", "some/x-ray", bytes_of_file(tmp_path / "model.safetensors"))
    program = (
        "import sys, time, torch; from catheters.models.backbone import create_backbone; start = time.monotonic()\n"
        "try: torch.save(create_backbone('test_vit', pretrained=sys.argv[1], image_shape=(160, 160), is_pooled=True)[0]"
        ".state_dict(), sys.argv[2])\n"
        "except Exception as error: print(error)\n"
        "print(time.monotonic() - start)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment = {name: value for name, value in environment.items() if name not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    for repo_id in ("some/x-ray", "some/absent"):
        command = [sys.executable, "-c", program, f"hf-hub:{repo_id}", str(tmp_path / "taken.pth")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=Path.cwd())
        *said, seconds = done.stdout.splitlines()
        assert float(seconds) < QUICK
        assert len(said) == (repo_id == "some/absent")
        assert all("hf download some/absent --local-dir absent" in line for line in said)
    taken = torch.load(tmp_path / "taken.pth", weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in taken.items() if name != STEMS["test_vit"])
