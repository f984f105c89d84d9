"""Settings from a config module, the command line or a run's `settings.json`, with a clear word for every mistake."""

import ast
import contextlib
import dataclasses
import importlib.metadata
import os
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from catheters.config.mistakes import WrongSetting, in_one_line, unknown_setting
from catheters.config.presets import PRESETS
from catheters.config.settings import FIELDS, MEANT_BEFORE, Settings
from catheters.errors import SettingsError, UserError, counted, one_line
from catheters.io.files import UnreadableFileError, parse_json, read_utf8
from catheters.io.run_record import read_record
from catheters.labels import UNKNOWN
from catheters.runtime.host import num_processes

SETTING_NAMES = tuple(field.name for field in dataclasses.fields(Settings))
SHELL_WORDS = {"true": True, "false": False, "none": None, "null": None}
"""What people write on a command line for Python's True, False and None."""
MOVED = {
    "catheters.settings": "from catheters import Settings",
    "catheters.presets": "from catheters.config.presets import ...",
}
"""Module that configs imported once -> what they write now."""
_adapter = TypeAdapter(Settings)


def load_settings(config_file: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> Settings:
    """Read `settings` from a config module and apply `name=value` overrides.

    Args:
        config_file: Python file that defines `settings = Settings(...)`, or the name of one of `PRESETS`; None: the
            defaults.
        overrides: strings such as `image_size=512`, `folds=[0,1]`, `backbone_model=rexnet_100`.

    Raises:
        SettingsError: the file or an override is wrong.
    """
    file = None if config_file is None else Path(config_file)
    settings = with_overrides(Settings() if file is None else _run_config(file), overrides)
    try:
        return dataclasses.replace(settings, run_name=settings.run_name or (file.stem if file else None))
    except WrongSetting:
        raise SettingsError(
            f"{file}: its name is that of the run folder, which has letters, digits, '_', '.' and '-' only; rename the "
            "file or set run_name"
        ) from None


def with_overrides(settings: Settings, overrides: Sequence[str]) -> Settings:
    """The settings with `name=value` overrides of the command line.

    Raises:
        SettingsError: an override is wrong.
    """
    values = dict(_parse_override(text) for text in overrides)
    try:
        return dataclasses.replace(settings, **values)
    except WrongSetting as error:
        raise SettingsError(f"command line: {error}") from None


def settings_to_json(settings: Settings) -> str:
    """The settings as JSON text, one field per line."""
    return _adapter.dump_json(settings, indent=2).decode() + "\n"


def config_text(settings: Settings) -> str:
    """A config module of these settings: those that are not the defaults, by name, nothing else."""
    plain = dataclasses.asdict(settings)
    values = "".join(f"    {name}={plain[name]!r},\n" for name in changed_settings(settings))
    return f"from catheters import Settings\n\nsettings = Settings(\n{values})\n"


def settings_from_json(text: str, source: str, written_by: str | None = None) -> Settings:
    """The inverse of `settings_to_json`.

    Args:
        text: JSON text.
        source: where the text comes from, for the message.
        written_by: the version of the program that wrote it; None: not known.

    Raises:
        SettingsError: it is not JSON of settings, or of those that another version has.
    """
    try:
        stored = parse_json(text)  # pydantic takes NaN and Infinity
    except ValueError as error:
        raise SettingsError(f"{source}: damaged ({one_line(error, 120)})") from None
    try:
        settings = _adapter.validate_json(text)
    except ValidationError as error:
        raise SettingsError(f"{source}: {_describe_written(error, written_by)}") from None
    return dataclasses.replace(settings, **{name: old for name, old in MEANT_BEFORE.items() if name not in stored})


def read_run_settings(file: Path) -> Settings:
    """The settings of a run's `settings.json`.

    Raises:
        SettingsError: it is missing, damaged, or of another version of the program.
    """
    written_by = None
    with contextlib.suppress(UserError, KeyError, TypeError):
        _, environments = read_record(file.parent)
        written_by = str(environments[-1]["versions"]["catheters"])
    try:
        text = read_utf8(file)
    except UnreadableFileError as error:
        raise SettingsError(str(error)) from None
    return settings_from_json(text, str(file), written_by)


def changed_settings(settings: Settings) -> dict[str, Any]:
    """Those settings that are not the defaults, by name."""
    default = Settings()
    names = (field.name for field in dataclasses.fields(Settings))
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != getattr(default, name)}


def settings_warnings(settings: Settings) -> list[str]:
    """Warnings about settings that were changed and have no effect beside the others, or stop a schedule early.

    With stages, those of each; a value that has an effect in one of them is not named.
    """
    runs = settings.in_stages()
    ignored = [(run, _ignored(run)) for run in runs]
    warnings = [
        f"{name}={getattr(run, name)!r} has no effect: {reason}"
        for run, reasons in ignored
        for name, reason in reasons.items()
        if all(name in of_other or getattr(other, name) != getattr(run, name) for other, of_other in ignored)
    ]
    return list(dict.fromkeys([*warnings, *(text for run in runs for text in _warnings_of_schedule(run))]))


def _ignored(settings: Settings) -> dict[str, str]:
    """Name -> reason, of settings that were changed and have no effect beside the others."""
    changed = changed_settings(settings)
    schedule = f"schedule='{settings.schedule}'"
    is_cosine = settings.schedule == "cosine"
    reasons = {
        "label_values": (
            "derived_labels has every label",
            len(settings.derived_labels) == len(settings.label_columns)
            and not any(value.strip() == "" or meaning == UNKNOWN for value, meaning in settings.label_values.items()),
        ),
        "soft_label_threshold": ("soft_labels=False", not settings.soft_labels),
        **dict.fromkeys(("soft_weight", "pseudo_labels"), ("teacher=None", settings.teacher is None)),
        "pseudo_label_confidence": (
            f"pseudo_labels='{settings.pseudo_labels}'",
            settings.pseudo_labels != "confident",
        ),
        "warmup_multiplier": ("warmup_epochs=0", settings.warmup_epochs == 0),
        "min_lr": (
            schedule if settings.schedule == "constant" else "cosine_epochs=0",
            settings.schedule == "constant" or (is_cosine and settings.cosine_epochs == 0),
        ),
        "cosine_epochs": (schedule, not is_cosine),
        "schedule_step": (
            f"{schedule} and warmup_epochs=0",
            settings.schedule in ("constant", "plateau") and settings.warmup_epochs == 0,
        ),
        "restart_epochs": (schedule, settings.schedule != "cosine_restarts"),
        "plateau_patience": (schedule, settings.schedule != "plateau"),
        "plateau_factor": (schedule, settings.schedule != "plateau"),
        "amp_dtype": ("use_amp=False", not settings.use_amp),
        "exclusive_conflicts": ("exclusive is empty", not settings.exclusive),
        "heads": ("classifier='linear' and lines=None", settings.classifier == "linear" and settings.lines is None),
        "landmark_table": (f"lines={settings.lines!r}", not settings.learns_lines),
        "line_stride": (f"lines={settings.lines!r}", not settings.learns_lines),
        "spacing_table": (f"lines={settings.lines!r}", not settings.learns_lines),
        "drop_rate": ("classifier='attention'", settings.classifier == "attention"),
        "folds": ("all_data=True", settings.all_data),
        "fold_column": ("all_data=True", settings.all_data),
        "num_folds": ("all_data=True", settings.all_data),
        "fold_seed": (
            "all_data=True" if settings.all_data else "fold_column has the folds",
            not settings.debug and (settings.all_data or settings.fold_column is not None),
        ),
        "valid_batch_size": ("all_data=True", settings.all_data),
        "early_stop": ("all_data=True", settings.all_data and settings.early_stop > 0),
        "augment_on": ("train_transforms is empty", not settings.train_transforms),
        "compile_mode": (
            "device='cpu', which has no CUDA graphs, so it is as 'default'",
            settings.device == "cpu" and settings.compile_mode == "reduce-overhead",
        ),
        "mixup_alpha": ("batch_size=1, so no image has another to be mixed with", settings.batch_size == 1),
        "debug_fraction": ("debug=False", not settings.debug),
        "deterministic": ("device='cpu', which always is", settings.device == "cpu"),
        "sync_batch_norm": ("folds_parallel=True", settings.folds_parallel),
        "folds_parallel": ("torchrun has started one process", num_processes() == 1),
    }
    return {name: reason for name, (reason, is_ignored) in reasons.items() if is_ignored and name in changed}


def _warnings_of_schedule(settings: Settings) -> list[str]:
    """What is odd about the learning rates of so many epochs."""
    warnings: list[str] = []
    is_cosine = settings.schedule == "cosine"
    schedule_epochs = settings.warmup_epochs + (settings.cosine_epochs if is_cosine else 0)
    if settings.num_epochs < schedule_epochs:
        names = "warmup_epochs + cosine_epochs" if is_cosine else "warmup_epochs"
        num_left = settings.num_epochs - settings.warmup_epochs
        whole = f"; cosine_epochs={num_left} makes it a whole one" if is_cosine and num_left > 0 else ""
        length = counted(schedule_epochs, "epoch")
        warnings.append(f"epochs={settings.num_epochs} stops a schedule of {length} early ({names}){whole}")
    restarts = settings.restart_epochs
    num_into_cosine = (settings.num_epochs - settings.warmup_epochs) % restarts
    if settings.schedule == "cosine_restarts" and 0 < num_into_cosine < restarts / 2:
        warnings.append(
            f"epochs={settings.num_epochs} stops in the first half of a cosine of restart_epochs={restarts}, at a high "
            "learning rate"
        )
    if settings.schedule == "plateau" and 0 < settings.early_stop <= settings.plateau_patience:
        warnings.append(
            f"early_stop={settings.early_stop} stops a fold before plateau_patience={settings.plateau_patience} "
            "lowers the learning rate"
        )
    return warnings


def _run_config(config_file: Path) -> Settings:
    if str(config_file) in PRESETS and not config_file.is_file():
        return PRESETS[str(config_file)]
    if not config_file.is_file():
        raise SettingsError(
            f"{config_file}: no such config file; give one with --config FILE, or a preset's name: {', '.join(PRESETS)}"
        )
    try:
        settings = runpy.run_path(str(config_file)).get("settings")
    except WrongSetting as error:
        line = _line_of_keyword(config_file, error.setting) if error.setting else None
        where = f"{config_file}:{line}" if line else str(config_file)
        raise SettingsError(f"{where}: {error}") from None
    except SyntaxError as error:
        raise SettingsError(f"{config_file}:{error.lineno}: {error.msg}") from None
    except ModuleNotFoundError as error:
        if error.name not in MOVED:
            raise SettingsError(f"{where_in_file(config_file, error)}: {type(error).__name__}: {error}") from None
        raise SettingsError(
            f"{where_in_file(config_file, error)}: {error.name} is a module of version 0.2.0; write "
            f"`{MOVED[error.name]}`"
        ) from None
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{where_in_file(config_file, error)}: {type(error).__name__}: {error}") from None
    if not isinstance(settings, Settings):
        raise SettingsError(f"{config_file}: no `settings = Settings(...)` in it; config.py shows how it looks")
    return settings


def where_in_file(config_file: Path, error: BaseException) -> str:
    """The file and, where it is known, the line of the config in which an error arose."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(config_file)]
    return f"{config_file}:{lines[-1]}" if lines else str(config_file)


def _parse_override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        hint = (
            f"a settings file is given with --config {text}" if text.endswith(".py") else "for example image_size=512"
        )
        raise SettingsError(f"command line: '{text}' is not name=value; {hint}")
    if name not in SETTING_NAMES:
        raise SettingsError(f"command line: {unknown_setting(name, FIELDS)}")
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = SHELL_WORDS.get(value, value)
    # `run_name=7` means the text "7" where a number is not allowed.
    if isinstance(parsed, int | float) and not isinstance(parsed, bool):
        as_number: dict[str, Any] = {name: parsed}
        try:
            dataclasses.replace(Settings(), **as_number)
        except WrongSetting as error:
            if error.kind == "string_type":
                parsed = value
    return name, parsed


def _describe_written(error: ValidationError, written_by: str | None) -> str:
    """One line for settings that were written by this program or by another version of it."""
    installed = importlib.metadata.version("catheters")
    unknown = [
        str(details["loc"][0])
        for details in error.errors(include_url=False)
        if details["type"] == "unexpected_keyword_argument"
    ]
    if written_by == installed or (written_by is None and not unknown):
        return str(in_one_line(error, FIELDS))
    version = "another version of the program" if written_by is None else f"version {written_by} of the program"
    has = f"it has the setting '{unknown[0]}'" if unknown else str(in_one_line(error, FIELDS))
    return f"written by {version}, this is version {installed}: {has}; use it with the version that wrote it"


def _line_of_keyword(config_file: Path, name: str) -> int | None:
    tree = ast.parse(config_file.read_bytes())
    return next((node.lineno for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == name), None)
