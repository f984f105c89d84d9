"""Random draws of training, reproducible: each follows from the seed, the number of the batch and the rank alone.

So no generator has a state that a resumed run would have to restore.
"""

import numpy as np
import torch

MIXUP = 1
"""Keeps mixup's draws apart from others of the same seed."""
LAYERS = 2
"""Those of dropout and stochastic depth."""


def generator_of(seed: int, stream: int, batch: int, rank: int) -> np.random.Generator:
    """A generator for one use in one batch.

    Args:
        seed: the run's seed.
        stream: one of the constants of this module.
        batch: number of the batch in the whole training, from 0.
        rank: of the process.
    """
    return np.random.default_rng(_sequence(seed, stream, batch, rank))


def seed_layers(seed: int, batch: int, rank: int) -> None:
    """Seed torch, on all devices, for this batch by (seed, batch, rank)."""
    torch.manual_seed(int(_sequence(seed, LAYERS, batch, rank).generate_state(1, np.uint64)[0]))


def _sequence(seed: int, stream: int, batch: int, rank: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(stream, batch, rank))
