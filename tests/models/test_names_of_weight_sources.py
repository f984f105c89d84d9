"""What `pretrained` may be: a source that there is not is refused, a file may have any name."""

import dataclasses
from pathlib import Path

import pytest

from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.models.weight_sources import find_weights
from catheters.runs.preflight import check_choices

FORMS = "; the path of a file, local-dir:FOLDER, hf-hub:OWNER/REPO or hf-hub:OWNER/REPO@REVISION is expected"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("localdir:weights", "'localdir:' is not a source of weights; did you mean 'local-dir:'?"),
        ("hfhub:some/x-ray", "'hfhub:' is not a source of weights; did you mean 'hf-hub:'?"),
        ("s3:bucket/x.pth", "'s3:' is not a source of weights; there are: hf-hub:, local-dir:"),
        ("https://some.where/x.pth", "weights are not taken from an address; download the file and name its path"),
        (
            "https://huggingface.co/some/x-ray/resolve/main/model.safetensors",
            "weights are not taken from an address; set pretrained=hf-hub:some/x-ray",
        ),
        ("https://huggingface.co/some", "weights are not taken from an address; download the file and name its path"),
    ],
)
def test_a_source_that_there_is_not(settings: Settings, value: str, message: str) -> None:
    """Said before data are read, with all forms that there are."""
    with pytest.raises(UserError) as error:
        check_choices(dataclasses.replace(settings, pretrained=value))
    assert str(error.value) == f"pretrained={value}: {message}{FORMS}"


def test_a_file_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old:x.pth").touch()
    assert find_weights("old:x.pth").file == Path("old:x.pth")
    assert find_weights("./new:x.pth").file == Path("./new:x.pth")  # absent, which is said when it is read
