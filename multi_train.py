"""Multi-head training, one head per device type, of every fold in the settings: python multi_train.py --help."""

from functools import partial

from catheters.commands.command_line import run_command
from catheters.commands.train import main

if __name__ == "__main__":
    run_command(partial(main, default_config="multi_config.py"))
