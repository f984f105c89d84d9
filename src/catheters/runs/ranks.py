"""Whether the ranks of torchrun, on one machine or several, do the same."""

from collections.abc import Mapping
from importlib.metadata import version

from catheters.config.compatibility import comparable
from catheters.config.settings import Settings
from catheters.runtime.distributed import TorchrunProcesses

MAY_DIFFER = (
    *("dataset_folder", "cache_folder", "saved_models_folder", "annotation_table", "landmark_table"),
    *("first_stage", "teacher", "run_name", "num_workers", "device", "trackers"),
)
"""Settings that may be others on another machine: where it has things, how it computes. What the files hold is
compared by its content."""


def check_alike(torchrun: TorchrunProcesses, settings: Settings, facts: Mapping[str, object]) -> None:
    """Refuse ranks of which one has another version of the program, other settings or other data than rank 0.

    Args:
        torchrun: all ranks that call this.
        settings: this rank's.
        facts: further ones, such as hashes of the data.

    Raises:
        UserError: names the first rank and fact that differ.
    """
    if torchrun.count == 1:
        return
    torchrun.check_alike("version", {"catheters": version("catheters")})
    compared = {name: value for name, value in comparable(settings).items() if name not in MAY_DIFFER}
    torchrun.check_alike("setting", compared)
    torchrun.check_alike("data set", facts)
