"""`catheters synthetic`: write the synthetic sample."""

import argparse
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Parse the command line and generate; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Draw synthetic chest radiographs with tubes and lines, in RANZCR CLiP's file layout."
    )
    parser.add_argument("folder", type=Path, help="new or empty folder")
    parser.add_argument("--num-images", type=int, default=600, help="training images (default: %(default)s)")
    parser.add_argument("--num-test-images", type=int, default=60, help="test images (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=512, help="longer side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=None, help="threads (default: one per core)")
    options = parser.parse_args(arguments)
    # OpenCV takes a moment to load; `--help` is answered at once.
    from catheters.synthetic.writer import generate_sample

    generate_sample(**vars(options))
    return 0
