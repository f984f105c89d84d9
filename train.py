"""Single-head training of every fold in the settings: python train.py --help."""

from catheters.commands.command_line import run_command
from catheters.commands.train import main

if __name__ == "__main__":
    run_command(main)
