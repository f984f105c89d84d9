"""`catheters synthetic`: write the synthetic sample, or draw on real radiographs."""

import argparse
from pathlib import Path

from catheters.commands.command_line import refuse_ranks

NUM_TEST_IMAGES = 60


def main(arguments: list[str]) -> int:
    """Parse the command line and generate; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Draw synthetic chest radiographs with tubes and lines, in RANZCR CLiP's file layout. With --on, "
        "draw the tubes and lines on real radiographs."
    )
    parser.add_argument("folder", type=Path, help="new or empty folder")
    parser.add_argument(
        "--on", type=Path, metavar="FOLDER", help="draw on the frontal chest radiographs of this folder"
    )
    parser.add_argument(
        "--patients",
        type=Path,
        metavar="CSV",
        help="with --on: a table with the columns file and patient_id (default: each image is a patient of its own)",
    )
    parser.add_argument("--num-images", type=int, default=600, help="training images (default: %(default)s)")
    parser.add_argument(
        "--num-test-images",
        type=int,
        default=None,
        help=f"test images (default: {NUM_TEST_IMAGES}; with --on there are none)",
    )
    parser.add_argument("--image-size", type=int, default=512, help="longer side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images (default: %(default)s)")
    parser.add_argument(
        "--hospital",
        choices=("first", "second"),
        default="first",
        help="second: other patients, catheters, tones and noise, for external validation (default: %(default)s)",
    )
    parser.add_argument("--num-workers", type=int, default=None, help="threads (default: one per core)")
    options = vars(parser.parse_args(arguments))
    radiographs, patients = options.pop("on"), options.pop("patients")
    num_test_images = options.pop("num_test_images")
    if radiographs is None and patients is not None:
        parser.error("--patients: says whose radiographs --on draws on; name their folder with --on")
    if radiographs is not None and num_test_images:
        parser.error("--num-test-images: --on draws no test images; leave it out")
    if radiographs is not None and options["hospital"] != "first":
        parser.error("--hospital: --on draws on the radiographs that there are; leave it out")
    refuse_ranks("catheters synthetic")
    # OpenCV takes a moment to load; `--help` is answered at once.
    from catheters.synthetic import generate_on, generate_sample

    if radiographs is not None:
        options.pop("hospital")
        generate_on(radiographs=radiographs, patients=patients, **options)
    else:
        generate_sample(**options, num_test_images=NUM_TEST_IMAGES if num_test_images is None else num_test_images)
    return 0
