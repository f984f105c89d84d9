"""A run that has been trained."""

import pytest

from catheters.settings import Settings
from catheters.training.run import train_run


@pytest.fixture
def trained(cached: Settings) -> Settings:
    train_run(cached, fresh=False)
    return cached
