"""X-rays to a .npy image cache, once per data set: python preproc_npy.py --help."""

from catheters.commands.command_line import run_command
from catheters.commands.preproc_options import main

if __name__ == "__main__":
    run_command(main)
