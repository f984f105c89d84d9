"""`python -m catheters.synthetic FOLDER`: write the synthetic sample."""

import argparse
from pathlib import Path

from catheters.commands.command_line import run_command
from catheters.synthetic.writer import generate_sample


def main(arguments: list[str]) -> int:
    """Parse the command line and generate; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m catheters.synthetic",
        description="Draw synthetic chest radiographs with tubes and lines, in RANZCR CLiP's file layout.",
    )
    parser.add_argument("folder", type=Path, help="new or empty folder")
    parser.add_argument("--num-images", type=int, default=600, help="training images (default: %(default)s)")
    parser.add_argument("--num-test-images", type=int, default=60, help="test images (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=512, help="longer side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=None, help="threads (default: one per core)")
    generate_sample(**vars(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    run_command(main)
