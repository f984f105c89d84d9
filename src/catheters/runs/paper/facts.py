"""What is known of a run and of its evaluation, for the answers of a checklist."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catheters.checkpoints.finished import finished_folds
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.report.report import Background
from catheters.io.run_record import read_record
from catheters.io.torch_files import read_torch_file
from catheters.runs.evaluation.inputs import Input
from catheters.runs.paper.flow import ImageFlow
from catheters.runs.paper.table_one import TableOne


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The checkpoint of one fold.

    Attributes:
        fold: its number.
        epoch: the epoch of its weights, from 1.
        num_parameters: numbers that are learnt, and the running averages of batch norm.
        mean: grey mean that is subtracted from the pixels, in 0..1.
        std: what they are divided by, in 0..1.
    """

    fold: int
    epoch: int
    num_parameters: int
    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that an answer may use.

    Attributes:
        settings: of the run; None for predictions from elsewhere.
        evaluation: what was found out.
        background: what the page says besides.
        flow: what became of the images.
        table_one: who and what they are.
        environment: under what the run was started, see `describe_environment`; None where that is not known.
        num_environments: under how many it was trained.
        fingerprint: of the data that it was trained on; None likewise.
        models: of the finished folds; empty likewise.
        validations: on images from elsewhere: name -> its `external.json`.
    """

    settings: Settings | None
    evaluation: Evaluation
    background: Background
    flow: ImageFlow
    table_one: TableOne
    environment: Mapping[str, Any] | None
    num_environments: int
    fingerprint: str | None
    models: tuple[ModelFacts, ...]
    validations: Mapping[str, Mapping[str, Any]]


def collect_facts(
    given: Input,
    evaluation: Evaluation,
    background: Background,
    flow: ImageFlow,
    table_one: TableOne,
    validations: Mapping[str, Mapping[str, Any]],
) -> Facts:
    """Read what the run folder knows besides.

    Raises:
        UserError: a checkpoint is damaged.
    """
    environments: list[dict[str, Any]] = []
    fingerprint, models = None, []
    if given.settings is not None:
        run = given.file.parent
        with contextlib.suppress(UserError):  # of which the evaluation has warned
            fingerprint, environments = read_record(run)
        models = [read_model(folder / "best.pt") for folder in finished_folds(run) if (folder / "best.pt").is_file()]
    return Facts(
        settings=given.settings,
        evaluation=evaluation,
        background=background,
        flow=flow,
        table_one=table_one,
        environment=environments[0] if environments else None,
        num_environments=len(environments),
        fingerprint=fingerprint,
        models=tuple(models),
        validations=validations,
    )


def read_model(file: Path) -> ModelFacts:
    """What a fold's checkpoint says of itself.

    Raises:
        UserError: it is damaged.
    """
    content = read_torch_file(file)
    return ModelFacts(
        fold=int(content["fold"]),
        epoch=int(content["epoch"]),
        num_parameters=sum(weights.numel() for weights in content["model"].values()),
        mean=float(content["preprocessing"]["mean"]),
        std=float(content["preprocessing"]["std"]),
    )
