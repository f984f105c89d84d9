"""Several ways to train against the first, or a search for better ones: python compare.py --help."""

from catheters.commands.command_line import run_command
from catheters.commands.compare_options import main

if __name__ == "__main__":
    run_command(main)
