"""Whether the ranks of torchrun, on one machine or several, do the same."""

import json
from collections.abc import Mapping
from importlib.metadata import version

from catheters.config.compatibility import MAY_CHANGE
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.runtime.distributed import TorchrunProcesses


def check_alike(torchrun: TorchrunProcesses, settings: Settings, facts: Mapping[str, object]) -> None:
    """Refuse ranks of which one has another version of the program, other settings or other data than rank 0.

    Folders and what else does not change a result may differ: machines may have them elsewhere.

    Args:
        torchrun: all ranks that call this.
        settings: this rank's.
        facts: further ones, such as hashes of the data.

    Raises:
        UserError: names the first rank and fact that differ.
    """
    if torchrun.count == 1:
        return
    compared = {name: value for name, value in json.loads(settings_to_json(settings)).items() if name not in MAY_CHANGE}
    torchrun.check_alike("version", {"catheters": version("catheters")})
    torchrun.check_alike("setting", compared)
    torchrun.check_alike("data set", facts)
