"""The space of a search: which settings vary, between which ends or among which choices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import optuna

from catheters.config.compatibility import MAY_CHANGE
from catheters.config.field_types import number_type
from catheters.config.groups import type_of
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError, counted
from catheters.models.backbone import check_name
from catheters.runs.comparison.definitions import (
    check_defined,
    check_setting,
    read_base,
    run_definitions,
    with_values,
)
from catheters.runs.comparison.variants import (
    OF_CACHE,
    OF_DATA,
    Variant,
    read_common_data,
    refuse_own_overrides,
)
from catheters.runs.preflight import check_choices

NAMES_IN_FILE = ("base", "space")
"""What the file of a search defines."""
EXAMPLE = 'base = "sample" and space = {"init_lr": ("log", 1e-5, 1e-3), "drop_rate": (0.0, 0.5)}'
LOG = "log"
CACHED = (*OF_CACHE, "resize", "resampling")
"""Settings that say which image cache a trial reads."""
FORMS = 'a range (low, high), a log range ("log", low, high), or a list of choices'
LEARNT_FROM = ("annotation_table", "landmark_table", "first_stage", "teacher", "lr_batch_size")
"""Settings that may change in a run since their content is compared, and that change what it learns."""
NOT_SEARCHED: Mapping[str, str] = {
    **dict.fromkeys(
        (name for name in MAY_CHANGE if name not in LEARNT_FROM),
        "it says where and how fast a trial runs, not what it learns",
    ),
    **dict.fromkeys(("stages", "all_data"), "trials are scored, and pruned, by the validation of one training"),
    **dict.fromkeys(
        (*OF_DATA, "allow_leaking_folds", "exclusive"), "all trials are scored on the same images, labels and folds"
    ),
    **dict.fromkeys(("seed", "seeds"), "--seeds says which it is"),
    "folds": "--folds says which are trained",
}
"""Settings that a search does not vary, and why."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers between two ends, which belong to it.

    Attributes:
        low: the lower end.
        high: the upper end.
        is_log: whether values are drawn evenly by their logarithm.
        is_whole: whether they are whole numbers.
    """

    low: float
    high: float
    is_log: bool
    is_whole: bool

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values that stand for all: if the settings allow both ends, they allow what lies between."""
        return self.low, self.high

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """The value of a trial."""
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.is_log)
        return trial.suggest_float(name, self.low, self.high, log=self.is_log)

    def parameter(self, value: Any) -> Any:
        """What Optuna keeps of a value; None: it is outside."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_inside = is_number and self.low <= value <= self.high and (not self.is_whole or isinstance(value, int))
        return value if is_inside else None

    def value(self, parameter: Any) -> Any:
        """The inverse of `parameter`."""
        return parameter

    def __str__(self) -> str:
        return f"{self.low!r} to {self.high!r}{', log' if self.is_log else ''}"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Some values, in no order. Optuna knows them by their text, since its file has no tuples and dicts."""

    values: tuple[Any, ...]

    @property
    def samples(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    @property
    def _texts(self) -> list[str]:
        return list(map(repr, self.values))

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """The value of a trial."""
        return self.value(trial.suggest_categorical(name, self._texts))

    def parameter(self, value: Any) -> Any:
        """What Optuna keeps of a value; None: it is none of them."""
        return next((text for text, known in zip(self._texts, self.values, strict=True) if known == value), None)

    def value(self, parameter: Any) -> Any:
        """The inverse of `parameter`."""
        return self.values[self._texts.index(parameter)]

    def __str__(self) -> str:
        return ", ".join(self._texts)


Space = Mapping[str, Range | Choices]
"""Setting -> what it may be."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a file describes.

    Attributes:
        file: where it stands.
        base: settings of all trials, but for those that vary.
        space: the settings that vary.
    """

    file: Path
    base: Variant
    space: Space

    def first_parameters(self) -> dict[str, Any]:
        """The base's own values, as Optuna keeps them; none where one of them is outside the space."""
        parameters = {
            name: dimension.parameter(getattr(self.base.settings, name)) for name, dimension in self.space.items()
        }
        return {} if None in parameters.values() else parameters


def read_search(file: Path, overrides: Sequence[str]) -> Search:
    """Read a file with `base` and `space`, and check what the settings alone tell.

    Args:
        file: a Python file.
        overrides: `name=value`, settings of every trial.

    Raises:
        UserError: a name, an end, a choice or a type is wrong; the message says where.
    """
    content = run_definitions(file)
    check_defined(file, content, NAMES_IN_FILE, EXAMPLE)
    refuse_own_overrides(overrides, "the search")
    settings, name = read_base(file, content["base"], overrides)
    if settings.stages:
        raise SettingsError(
            f"{file}: base has stages, and a search prunes by the epochs of one training; set stages=()"
        )
    given = content["space"]
    if not isinstance(given, dict) or not given:
        raise SettingsError(f"{file}: space is {given!r}; a dict is expected, as in {EXAMPLE.partition(' and ')[2]}")
    overridden = {text.partition("=")[0] for text in overrides}
    space: dict[str, Range | Choices] = {}
    for setting, described in given.items():
        where = f"{file}: space[{setting!r}]"
        check_setting(setting, where)
        if setting in NOT_SEARCHED:
            raise SettingsError(f"{where}: {setting} may not vary: {NOT_SEARCHED[setting]}")
        if setting in overridden:
            raise SettingsError(f"{where}: varies, but the command line sets {setting}; leave it out of one of them")
        space[setting] = _read_dimension(setting, described, settings, where)
    return Search(file=file, base=Variant(name=name, source=f"{file}: base", settings=settings), space=space)


def check_trials(search: Search, base: Settings) -> None:
    """Check what a trial of each end and choice would fail of, before the first one: names, weights, data, caches.

    Args:
        search: what varies.
        base: its settings, placed in the search's folder.

    Raises:
        UserError: says which value of which setting.
    """
    check_choices(base)
    check_name(base.backbone_model)
    variants = [Variant(name="base", source=search.base.source, settings=base)]
    for name, dimension in search.space.items():
        for value in dimension.samples:
            where = f"{search.file}: space[{name!r}]: {value!r}"
            settings = with_values(base, {name: value}, where)
            try:
                check_choices(settings)
                check_name(settings.backbone_model)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            if name in CACHED:
                variants.append(Variant(name=f"{name}={value!r}", source=where, settings=settings))
    read_common_data(variants)


def _read_dimension(name: str, described: object, base: Settings, where: str) -> Range | Choices:
    """What a setting may be; each end and each choice has to be possible beside the base's other settings."""
    if isinstance(described, list):
        values = tuple(getattr(with_values(base, {name: value}, where), name) for value in described)
        return _read_choices(values, where)
    if not isinstance(described, tuple):
        raise SettingsError(f"{where} is {described!r}; {FORMS} is expected")
    is_log = described[:1] == (LOG,)
    ends = described[1:] if is_log else described
    if len(ends) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise SettingsError(f"{where} is {described!r}; {FORMS} is expected")
    if not all(map(_is_finite, ends)):
        raise SettingsError(f"{where}: both ends have to be finite numbers, below 1e308")
    low, high = ends
    kind = number_type(get_type_hints(Settings)[name])
    if kind is None:
        raise SettingsError(f"{where}: {name} takes {type_of(name)}, which has no range; list its choices: [...]")
    if name in CACHED:
        raise SettingsError(f"{where}: every value needs an image cache; list those that there are: [...]")
    if kind is int and not all(isinstance(end, int) for end in ends):
        raise SettingsError(f"{where} is {described!r}; {name} takes whole numbers, so both ends have to be")
    if low >= high:
        raise SettingsError(f"{where} is {described!r}; the lower end comes first")
    if is_log and low <= 0:
        raise SettingsError(f"{where} is {described!r}; a log range begins above 0")
    for end in ends:
        with_values(base, {name: end}, where)
    return Range(low=low, high=high, is_log=is_log, is_whole=kind is int)


def _is_finite(number: float) -> bool:
    """Whether a number is a finite one as float, which a whole number of hundreds of digits is not."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _read_choices(values: tuple[Any, ...], where: str) -> Choices:
    if len(values) < 2:
        what = counted(len(values), "choice")
        raise SettingsError(f"{where} has {what}; two or more are expected, and what does not vary stands in the base")
    texts = list(map(repr, values))
    twice = next((text for position, text in enumerate(texts) if text in texts[:position]), None)
    if twice is not None:
        raise SettingsError(f"{where}: {twice} is there twice")
    return Choices(values=values)
