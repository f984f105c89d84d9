"""`python -m catheters.synthetic FOLDER`: write the synthetic sample."""

from catheters.commands.command_line import run_command
from catheters.commands.synthetic import main

if __name__ == "__main__":
    run_command(main)
