"""`train.py`: single-head training of every fold."""

from catheters.command_line import read_settings, settings_parser
from catheters.training.run import train_run


def main(arguments: list[str]) -> int:
    """Train the folds that the settings choose. Returns the exit status."""
    parser = settings_parser(
        "Train one model a fold on the image cache. The same command again continues where it stopped.", "config.py"
    )
    parser.add_argument("--fresh", action="store_true", help="start over; an earlier run of that name is moved aside")
    options = parser.parse_args(arguments)
    train_run(read_settings(options), fresh=options.fresh)
    return 0
