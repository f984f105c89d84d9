"""Checkpoints and X-rays to probabilities: python predict.py --help."""

from catheters.commands.command_line import run_command
from catheters.commands.predict import main

if __name__ == "__main__":
    run_command(main)
