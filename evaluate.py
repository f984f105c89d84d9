"""Predictions and labels to metrics: python evaluate.py --help."""

from catheters.commands.command_line import run_command
from catheters.commands.evaluation_options import main

if __name__ == "__main__":
    run_command(main)
