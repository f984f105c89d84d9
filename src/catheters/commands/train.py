"""`train.py` and `multi_train.py`: training of every fold, by one engine with settings of their own."""

import signal

from catheters.commands.command_line import program, read_settings, settings_parser
from catheters.config.groups import GROUPS, TRAIN_FIRST
from catheters.runtime.host import keep_freed_memory, num_restarts, process_rank
from catheters.runtime.interrupts import Interrupted, interrupt_signal

DESCRIPTION = """\
Train one model per fold on the image cache. The same command again resumes an interrupted run, after Ctrl-C, SIGTERM,
SIGKILL or a power cut, and gives the same result as an uninterrupted run.

  {alone}
      one GPU, or the CPU
  torchrun --nproc-per-node=4 {of_rank}
      4 GPUs: each has a quarter of every batch of batch_size images
  torchrun --nproc-per-node=4 {of_rank} folds_parallel=True
      4 GPUs: each trains folds of its own
"""

MAX_KEPT_BYTES = 1 << 30
"""Of the memory that a step on a CPU frees, for the next one."""


def main(arguments: list[str], default_config: str = "config.py") -> int:
    """Train the folds that the settings choose. Returns the exit status."""
    alone = program("train.py" if default_config == "config.py" else "multi_train.py")
    of_rank = alone.removeprefix("python ") if alone.startswith("python ") else f"-m {alone}"
    description = DESCRIPTION.format(alone=alone, of_rank=of_rank)
    parser = settings_parser(description, default_config, tuple(GROUPS), TRAIN_FIRST)
    parser.add_argument("--fresh", action="store_true", help="start over; an earlier run of that name is moved aside")
    options = parser.parse_intermixed_args(arguments)
    settings = read_settings(options)
    # Imported only now: torch and timm take seconds to load, and a mistyped setting is reported at once.
    from catheters.runs.train import train

    keep_freed_memory(MAX_KEPT_BYTES)
    try:
        train(settings, fresh=options.fresh and num_restarts() == 0)  # torchrun repeats the command after a death
    except Interrupted:
        raise
    except KeyboardInterrupt:
        if process_rank() > 0:
            raise
        raise Interrupted("the same command resumes where it stopped", interrupt_signal() or signal.SIGINT) from None
    return 0
