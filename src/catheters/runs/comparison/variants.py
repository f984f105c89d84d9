"""The variants of a comparison: which there are, by their settings, and that they can be compared."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.loading import SETTING_NAMES, load_settings
from catheters.config.settings import IMAGES_AND_LABELS, Settings
from catheters.data.cache.cache import open_cache
from catheters.data.tables.folds import choose_folds
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import SettingsError, UserError
from catheters.runs.build import build_table_source
from catheters.runs.comparison.definitions import (
    check_defined,
    check_setting,
    read_base,
    run_definitions,
    with_values,
)

NAMES_IN_FILE = ("base", "variants")
"""What a file of variants defines."""
SET_BY_COMPARISON: Mapping[str, str] = {
    "seed": "--seeds says which there are",
    "seeds": "--seeds says which there are",
    "folds": "--folds says which are trained",
    "run_name": "the variant's name and the seed make it",
    "profile": "a run of its own shows where the time goes",
    "folds_parallel": "--jobs trains several at a time",
}
"""Settings that no variant says of itself, and why."""
OF_FOLDS = ("num_folds", "fold_column", "fold_seed", "debug", "debug_fraction")
OF_DATA = (*IMAGES_AND_LABELS, "label_columns", *OF_FOLDS)
"""Settings by which variants may come to other images, patients, labels or folds."""
OF_CACHE = ("image_size", "crop_borders", "inverted", "cache_name", "cache_folder")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train.

    Attributes:
        name: for people.
        source: what it was given as, for messages.
        settings: of any of its runs, whose seed and folds are still to be set.
    """

    name: str
    source: str
    settings: Settings

    @property
    def slug(self) -> str:
        """The name as a part of names of files."""
        return re.sub(r"[^\w.-]+", "_", self.name).strip("_.") or "variant"

    def run_name(self, seed: int) -> str:
        """Of its run of a seed."""
        return f"{self.slug}_seed{seed}"

    def with_settings(self, **changes: Any) -> "Variant":
        """The same with other settings."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **changes))


@dataclass(frozen=True, kw_only=True)
class CommonData:
    """What all variants of a comparison are evaluated on.

    Attributes:
        table: N images with their patients and labels, those that the cache could not read among them.
        folds: (N,) the fold of each.
        source: the label table's file.
    """

    table: LabelTable
    folds: "np.typing.NDArray[np.int8]"
    source: Path


def read_variants(sources: Sequence[str], overrides: Sequence[str]) -> list[Variant]:
    """The variants that a command names: configs and presets, or one file that names small changes to one.

    Args:
        sources: what stands on the command line.
        overrides: `name=value`, settings of every variant.

    Raises:
        UserError: a source or an override is wrong; or two variants have one name, or the same settings.
    """
    file = Path(sources[0])
    if len(sources) == 1 and file.is_file():
        variants = _read_file_of_variants(file, overrides)
    elif len(sources) == 1:
        load_settings(sources[0], overrides)  # a name that is wrong is said before one that is missing
        raise UserError(
            f"{sources[0]}: one variant alone has nothing to be compared with; name a second config, or a file with "
            "`base` and `variants`"
        )
    else:
        variants = [_read_config(source, overrides) for source in sources]
    for number, variant in enumerate(variants):
        for earlier in variants[:number]:
            if earlier.slug.casefold() == variant.slug.casefold():
                raise UserError(
                    f"{variant.source}: is called '{variant.name}', {earlier.source} '{earlier.name}'; their runs "
                    "would lie in one folder: rename one of them"
                )
    return variants


def _read_config(source: str, overrides: Sequence[str]) -> Variant:
    refuse_own_overrides(overrides)
    settings = load_settings(source, overrides)
    return Variant(name=Path(source).stem, source=source, settings=settings)


def refuse_own_overrides(overrides: Sequence[str], by: str = "the comparison") -> None:
    """Raise a SettingsError where an override is of a setting that the comparison, or whatever it is, sets itself."""
    for text in overrides:
        name = text.partition("=")[0]
        if name in SET_BY_COMPARISON:
            raise SettingsError(f"command line: {name} is set by {by}: {SET_BY_COMPARISON[name]}")


def _read_file_of_variants(file: Path, overrides: Sequence[str]) -> list[Variant]:
    """`base`, then each of `variants`."""
    content = run_definitions(file)
    if isinstance(content.get("settings"), Settings) and "variants" not in content:
        raise SettingsError(
            f"{file}: is one config, which has nothing to be compared with; name a second one, or write a file with "
            "`base` and `variants`"
        )
    if "space" in content and "variants" not in content:
        raise SettingsError(f"{file}: is the space of a search; write --search {file}")
    check_defined(file, content, NAMES_IN_FILE, 'base = "sample" and variants = {"ema": {"ema_decay": 0.99}}')
    variants = content["variants"]
    if not isinstance(variants, dict) or not variants or not all(isinstance(key, str) for key in variants):
        raise SettingsError(
            f'{file}: variants is {variants!r}; a dict is expected as in {{"ema": {{"ema_decay": 0.99}}}}'
        )
    refuse_own_overrides(overrides)
    settings, name = read_base(file, content["base"], overrides)
    found = [Variant(name=name, source=f"{file}: base", settings=settings)]
    for key, changes in variants.items():
        where = f"{file}: variants[{key!r}]"
        if not isinstance(changes, dict):
            raise SettingsError(f"{where} is {changes!r}; a dict of settings is expected, as in {{'ema_decay': 0.99}}")
        for setting in changes:
            check_setting(setting, where)
            if setting in SET_BY_COMPARISON:
                raise SettingsError(f"{where}: {setting} is set by the comparison: {SET_BY_COMPARISON[setting]}")
        found.append(Variant(name=key, source=where, settings=with_values(settings, changes, where)))
    return found


def place_runs(variants: Sequence[Variant], name: str) -> list[Variant]:
    """The variants with their run folders in the comparison's, and with folds that no seed changes.

    Raises:
        UserError: they have several `saved_models_folder`, or one has no out-of-fold predictions.
    """
    first = variants[0]
    placed = []
    for variant in variants:
        settings = variant.settings
        if settings.all_data:
            raise UserError(
                f"{variant.source}: all_data=True leaves no out-of-fold predictions to compare; set all_data=False"
            )
        if settings.saved_models_folder != first.settings.saved_models_folder:
            raise _differs(first, variant, "saved_models_folder", "one folder holds the comparison")
        # A table's own folds need no seed, and a setting without effect is warned of.
        seed_of_folds = settings.fold_seed if settings.fold_column else settings.seed_of_folds
        placed.append(
            variant.with_settings(
                saved_models_folder=str(Path(settings.saved_models_folder) / name),
                fold_seed=seed_of_folds,
                seed=0,
                seeds=None,
                profile=False,
                folds_parallel=False,
                run_name=variant.slug,
            )
        )
    for number, variant in enumerate(placed):
        for earlier in placed[:number]:
            one, other = (dataclasses.replace(of.settings, run_name=None) for of in (earlier, variant))
            if one == other:
                raise UserError(
                    f"{variant.source}: has the same settings as {earlier.source}; their runs would be equal"
                )
    return placed


def choose_common_folds(variants: Sequence[Variant], folds: Sequence[int] | None) -> tuple[int, ...]:
    """The folds to train: those that the command names, or those of the variants' settings.

    Raises:
        UserError: a fold does not exist, or the settings name several.
    """
    _check_same_folds(variants)
    first = variants[0]
    if folds is not None:
        num_folds = first.settings.num_folds
        wrong = [fold for fold in folds if not 0 <= fold < num_folds]
        if wrong:
            raise UserError(f"--folds {wrong[0]}: there are the folds 0 to {num_folds - 1} (num_folds={num_folds})")
        return tuple(folds)
    for variant in variants[1:]:
        if variant.settings.folds_to_train != first.settings.folds_to_train:
            raise _differs(first, variant, "folds", "name them with --folds")
    return first.settings.folds_to_train


def _check_same_folds(variants: Sequence[Variant]) -> None:
    first = variants[0]
    for variant in variants[1:]:
        for name in OF_FOLDS:
            if getattr(variant.settings, name) != getattr(first.settings, name):
                raise _differs(first, variant, name, "a comparison needs the same folds")


def read_common_data(variants: Sequence[Variant]) -> CommonData:
    """The images, patients, labels and folds of all variants, which have to be the same.

    Variants may read them by different settings, such as a cache of another size, as long as it comes to the same.

    Raises:
        UserError: names a variant and a setting that differ; or a table or an image cache cannot be read.
    """
    _check_same_folds(variants)
    first = variants[0]
    tables: dict[tuple[str, ...], LabelTable] = {}

    def table_of(variant: Variant) -> LabelTable:
        key = tuple(repr(getattr(variant.settings, name)) for name in OF_DATA)
        if key not in tables:
            tables[key] = read_label_table(build_table_source(variant.settings))
        return tables[key]

    def unread_of(variant: Variant) -> frozenset[str]:
        settings = variant.settings
        cache = open_cache(settings.cache_file, table_of(variant), build_preprocessing(settings))
        return frozenset(cache.failed)

    table, unread = table_of(first), unread_of(first)
    for variant in variants[1:]:
        other = table_of(variant)
        what = next((what for what, is_same in _SAME.items() if not is_same(table, other)), None)
        if what is not None:
            name = next(name for name in OF_DATA if getattr(variant.settings, name) != getattr(first.settings, name))
            raise _differs(first, variant, name, f"it gives other {what}, and only the same ones can be compared")
        if unread_of(variant) != unread:
            names = (name for name in OF_CACHE if getattr(variant.settings, name) != getattr(first.settings, name))
            example = sorted(unread_of(variant) ^ unread)[0]
            name = next(names, "cache_name")
            raise _differs(first, variant, name, f"its cache has other readable images, {example} for one")
    settings = first.settings
    folds = choose_folds(table, settings.num_folds, settings.seed_of_folds)
    return CommonData(table=table, folds=folds, source=build_table_source(settings).file)


_SAME: Mapping[str, Callable[[LabelTable, LabelTable], bool]] = {
    "labels": lambda one, other: one.label_columns == other.label_columns,
    "images": lambda one, other: bool(np.array_equal(one.uids, other.uids)),
    "patients": lambda one, other: bool(np.array_equal(one.patient_ids, other.patient_ids)),
    "true labels": lambda one, other: bool(np.array_equal(one.labels, other.labels, equal_nan=True)),
}
"""What has to be the same -> whether it is."""


def _differs(first: Variant, variant: Variant, setting: str, why: str) -> UserError:
    one, other = (getattr(of.settings, setting) for of in (first, variant))
    return UserError(f"{variant.name}: {setting} is {other!r}, that of {first.name} is {one!r}; {why}")


def differing_settings(variants: Sequence[Variant]) -> list[str]:
    """Names of the settings in which the variants differ, but for those of a run's place."""
    others = ("run_name", "saved_models_folder", "seed")
    first = variants[0].settings
    return [
        name
        for name in SETTING_NAMES
        if name not in others
        and any(getattr(variant.settings, name) != getattr(first, name) for variant in variants[1:])
    ]
