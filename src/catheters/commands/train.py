"""`train.py` and `multi_train.py`: training of every fold, by one engine with settings of their own."""

from catheters.command_line import read_settings, settings_parser


def main(arguments: list[str], default_config: str = "config.py") -> int:
    """Train the folds that the settings choose. Returns the exit status."""
    parser = settings_parser(
        "Train one model a fold on the image cache. The same command again continues where it stopped.", default_config
    )
    parser.add_argument("--fresh", action="store_true", help="start over; an earlier run of that name is moved aside")
    options = parser.parse_intermixed_args(arguments)
    settings = read_settings(options)
    # Imported only now: torch and timm take seconds to load, and a mistyped setting is answered at once.
    from catheters.training.run import train_run

    train_run(settings, fresh=options.fresh)
    return 0
