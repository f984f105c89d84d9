"""Where weights come from: a file, a folder as timm and transformers save one, or a model on the Hugging Face Hub."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from catheters.errors import UserError, listed, one_line, unknown_name
from catheters.io.files import UnreadableFileError, read_json

HUB = ("hf-hub:", "hf_hub:")
"""timm's two names of the Hub, before OWNER/REPO or OWNER/REPO@REVISION."""
FOLDER = "local-dir:"
"""timm's name of a folder, before its path."""
OTHER_SOURCE = re.compile(r"[A-Za-z][\w+.-]*:")
"""The beginning of an address, or of a source that nobody knows."""
HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)(?:/|$)")
"""A model's page on the Hub, or a file there."""
CONFIG_FILE = "config.json"
USUAL_NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "best.pt",
    "final.pt",
)
"""Of several files in a folder the first of these is taken: timm's order, see `timm.models._hub`; then our own."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".bin")
NAMES_SHOWN = 4
"""Files of a folder without weights that are named."""


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """What a value of `pretrained` leads to.

    Attributes:
        file: of weights, on this disk.
        origin: the same for people; of the Hub it has the commit.
        architecture: timm's name of the model that config.json beside the file gives; None: there is none, or it gives
            no such name.
    """

    file: Path
    origin: str
    architecture: str | None

    def other_architecture(self, name: str) -> str | None:
        """What config.json says the weights are of, if it is another model than this one, whatever its tag."""
        is_other = self.architecture is not None and _without_tag(self.architecture) != _without_tag(name)
        return self.architecture if is_other else None


def find_weights(pretrained: str, *, may_download: bool = True) -> WeightSource:
    """The file that a value of `pretrained` leads to; of the Hub it is downloaded once, and then taken from the cache.

    Args:
        pretrained: a path, `local-dir:FOLDER`, `hf-hub:OWNER/REPO` or `hf-hub:OWNER/REPO@REVISION`.
        may_download: whether the Hub may be asked for what is not in the cache.

    Raises:
        UserError: no such source, folder or model, no weights in it, several files, or the Hub cannot be reached. A
            path is taken as it is.
    """
    where = f"pretrained={pretrained}"
    if pretrained.startswith(HUB):
        file = fetch_from_hub(pretrained[len(HUB[0]) :], where, may_download=may_download)
        origin = f"{pretrained} ({file.name} of commit {file.parent.name[:12]})"
    elif pretrained.startswith(FOLDER):
        folder = Path(pretrained.removeprefix(FOLDER))
        if not folder.is_dir():
            found = "is a file, whose path alone is expected" if folder.is_file() else "no such folder"
            raise UserError(f"{where}: {folder}: {found}")
        file = folder / _choose(_names_in(folder), where)
        origin = str(file)
    else:
        _check_path(pretrained, where)
        return WeightSource(file=Path(pretrained), origin=pretrained, architecture=None)
    return WeightSource(file=file, origin=origin, architecture=_architecture_in(file.parent))


def _check_path(pretrained: str, where: str) -> None:
    """Refuse what is meant for a source that there is not, instead of a file; a file may have any name."""
    beginning = OTHER_SOURCE.match(pretrained)
    if beginning is None or Path(pretrained).exists():
        return
    forms = f"the path of a file, {FOLDER}FOLDER, {HUB[0]}OWNER/REPO or {HUB[0]}OWNER/REPO@REVISION is expected"
    if not pretrained[beginning.end() :].startswith("//"):
        raise UserError(f"{where}: {unknown_name(beginning[0], 'a source of weights', (HUB[0], FOLDER))}; {forms}")
    page = HUB_PAGE.match(pretrained)
    instead = "download the file and name its path" if page is None else f"set pretrained={HUB[0]}{page[1]}"
    raise UserError(f"{where}: weights are not taken from an address; {instead}; {forms}")


def fetch_from_hub(model_id: str, where: str, *, may_download: bool = True) -> Path:
    """The file of weights of a model on the Hub, in the cache of huggingface_hub.

    Without a network this fails after one attempt, of `HF_HUB_ETAG_TIMEOUT` (10) seconds at most: the Hub is asked for
    the list of files first. `hf_hub_download` by itself would try for three quarters of a minute per name of a file.

    Args:
        model_id: OWNER/REPO or OWNER/REPO@REVISION.
        where: the start of messages.
        may_download: whether the Hub may be asked for what is not in the cache.

    Raises:
        UserError: see `find_weights`.
    """
    repo_id, _, revision = model_id.partition("@")
    folder = _cached_folder(repo_id, revision, where)
    cached = [] if folder is None else _names_in(folder)
    if folder is not None and not set(USUAL_NAMES).isdisjoint(cached):
        return folder / _choose(cached, where)
    # None of another name is taken before the Hub has been asked, since it may be a trainer's arguments, say.
    other = None if folder is None or not _weights_among(cached) else folder / _choose(cached, where)
    if not may_download:
        if other is not None:
            return other
        raise UserError(f"{where}: {repo_id} is not in the cache")
    try:
        info = HfApi().model_info(repo_id, revision=revision or None, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        names = [file.rfilename for file in info.siblings or ()]
        name = _choose(names, where)
        if CONFIG_FILE in names:
            hf_hub_download(repo_id, CONFIG_FILE, revision=revision or None)
        return Path(hf_hub_download(repo_id, name, revision=revision or None))
    except UserError:
        raise
    except RepositoryNotFoundError:
        raise UserError(
            f"{where}: the Hub has no model {repo_id}, or it is private or gated; check its name, or log in with "
            "`hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{where}: {repo_id} has no branch, tag or commit {revision}") from None
    except Exception as error:  # no network, no such host, a proxy: errors of huggingface_hub, httpx and the system
        if other is not None:
            return other
        reason = one_line(error).partition(". ")[0]
        of_revision = f" --revision {revision}" if revision else ""
        folder_name = repo_id.rpartition("/")[2]
        raise UserError(
            f"{where}: the weights of {repo_id} could not be downloaded ({reason}); connect to the network, or run "
            f"`hf download {repo_id}{of_revision} --local-dir {folder_name}` where there is one, bring that folder "
            f"here and set pretrained={FOLDER}{folder_name}; pretrained=False starts from random weights"
        ) from error


def _cached_folder(repo_id: str, revision: str, where: str) -> Path | None:
    """The folder of a model in the cache; it need not have all files."""
    try:
        return Path(snapshot_download(repo_id, revision=revision or None, local_files_only=True))
    except HFValidationError as error:
        raise UserError(f"{where}: OWNER/REPO or OWNER/REPO@REVISION is expected ({one_line(error, 120)})") from None
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)
    except LocalEntryNotFoundError:
        return None


def _names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def _weights_among(names: Collection[str]) -> list[str]:
    """The file of weights with a usual name; if there is none, all that may be one."""
    usual = [name for name in USUAL_NAMES if name in names]
    return usual[:1] or sorted(name for name in names if name.endswith(SUFFIXES) and "/" not in name)


def _choose(names: Collection[str], where: str) -> str:
    found = _weights_among(names)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{where}: several files of weights: {listed(found)}; set pretrained to the path of one")
    there = f"it has: {listed(sorted(names), NAMES_SHOWN)}" if names else "there is no file in it"
    raise UserError(f"{where}: no file of weights; {USUAL_NAMES[0]} or {USUAL_NAMES[1]} is expected; {there}")


def _architecture_in(folder: Path) -> str | None:
    try:
        content = read_json(folder / CONFIG_FILE)
    except UnreadableFileError:
        return None
    name = content.get("architecture") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


def _without_tag(name: str) -> str:
    return name.partition(".")[0]
