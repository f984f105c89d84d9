"""`python -m catheters.synthetic FOLDER`: write the synthetic sample."""

import sys

from catheters.commands.command_line import run_command
from catheters.commands.synthetic import main

if __name__ == "__main__":
    sys.argv[0] = "python -m catheters.synthetic"  # as usage and errors say
    run_command(main)
