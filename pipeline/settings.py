"""Settings of a call: the command line, the config.json of a run folder, and the checks."""

import argparse
import json
import math
import operator
import os
import re
import sys
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args, get_origin

import tyro

from config import PRESETS, Config, Preset
from pipeline.paths import RunFolder
from utils.errors import InputError
from utils.files import write_json
from utils.progress import wrapped

# The settings that affect each kind of output; * stands for any letters. When one changes, the output is made again (a
# trained network only with --overwrite). Every setting is in at least one row.
SETTINGS_BY_OUTPUT = {
    "unet": (
        *("unet_*", "augment_flips", "augment_rotation", "augment_shift", "augment_zoom", "augment_blur"),
        *("augment_brightness", "augment_contrast", "augment_saturation", "augment_hue", "batch_norm_momentum", "seed"),
        *("weights", "mixed_precision"),
    ),
    "copied": (),
    "copies": ("unet_image_size",),
    "masks": ("mask_*", "test_time_augmentation"),
    "overlap": (),
    "crops": ("masks", "crop_*", "image_size"),
    "folds": ("folds", "seed"),
    "classifier": (
        *("backbone_name", "image_size", "crop_border", "weights", "se_*", "head_*", "batch_norm_momentum"),
        *("learning_rate", "lr_schedule", "warmup_epochs", "frozen_*", "weight_decay", "ema_momentum"),
        *("label_smoothing", "sampling_power", "extra_per_epoch", "extra_labels", "batch_size", "epochs", "monitor"),
        *("early_stopping_patience", "class_weights", "augment_*", "seed", "mixed_precision"),
    ),
    "predictions": ("backbone_name", "test_time_augmentation"),
    "vote": ("vote_*", "stacking_*", "backbones", "folds", "splits", "seed"),
    "report": ("seed", "decide_by"),
    # These change no output. They change how the work is done, or belong to one call.
    "nothing": (
        *("preset", "data_dir", "unet", "extra_data_dir", "extra_mask_dir", "skip_bad_images", "allow_duplicates"),
        *("workers", "in_memory", "devices", "tensorboard", "checkpoint_seconds"),
        *("config", "overwrite", "run_dir", "fold"),
    ),
}
# The settings that `--help` of each script puts first: those of some kinds of output (keys of the table above), and
# single settings.
FIRST_IN_HELP = {
    "seg_train.py": (["unet"], ["extra_data_dir", "extra_mask_dir"]),
    "seg_predict.py": (["masks"], ["unet", "unet_batch_size"]),
    "resize.py": (["crops"], ["extra_data_dir", "extra_mask_dir"]),
    "training.py": (["classifier"], ["folds", "fold", "extra_data_dir"]),
    "cls_predict.py": (["predictions"], ["batch_size", "folds"]),
    "vote.py": (["vote"], []),
    "report.py": (["report"], []),
    "predict.py": (["report"], ["test_time_augmentation"]),
    "paper_tables.py": ([], ["backbones", "splits"]),
}
HELP_ORDER = "The options: first those of this script, then those of every stage, then those of other stages."
# No file of settings holds these.
UNSAVED_SETTINGS = ("config", "overwrite")
# config.json of a run folder leaves these out: they belong to one call or one place, not to the run. config.json beside
# an output holds the last three, because they say which output it is.
PER_CALL_SETTINGS = (*UNSAVED_SETTINGS, "run_dir", "backbone_name", "fold")
# A file of an older version lacks newer settings. They get the defaults of this preset, which must change nothing.
DEFAULTS = PRESETS["isic2017"]
COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def affects(setting, output, table=SETTINGS_BY_OUTPUT):
    """Whether a setting affects a kind of output, a key of `SETTINGS_BY_OUTPUT`."""
    return any(fnmatchcase(setting, pattern) for pattern in table[output])


def as_json(config):
    """The settings as a dictionary of values that JSON can hold."""
    values = {field.name: getattr(config, field.name) for field in fields(Config)}
    return json.loads(json.dumps(values, default=str))


def as_option_text(value):
    """A setting as text, as it is written after its option on the command line."""
    return " ".join(value) if isinstance(value, list | tuple) else str(value)


def parse_args(description, settings=Config, options=None, run_dir=None):
    """Read the settings from the command line.

    They start from the file that `--config` names, else from the preset, else from config.json of the run folder if
    there is one. A default that was edited after that file was written wins over the file; options win over everything.
    Prints which settings differ from those of the run, and which edited defaults have no effect.

    Args:
        description: text that `--help` shows above the options.
        settings: `Config`, or a subclass with options of one script's own.
        options: list of words to read in place of the command line.
        run_dir: the run folder without --run-dir, --preset and --config; None for that of `Config`.

    Returns:
        An object of that class.

    Raises:
        SystemExit: with code 2 after an unknown option or a wrong type; with code 0 after `--help`.
        InputError: if a value is invalid.
    """
    start, file, edited = starting_point(options, run_dir)
    check(start)
    ordered = in_order_of_help(settings, Path(sys.argv[0]).name)
    description = f"{description.rstrip() if description else ''}\n\n{HELP_ORDER}"
    values = tyro.cli(ordered, args=options, default=ordered(**vars(start)), description=description)
    config = expanded(settings(**vars(values)))
    check(config)
    run_file = RunFolder(config.run_dir).settings
    if file or run_file.exists():
        print_changed_settings(config, file, file or run_file, edited)
    print_edits_without_effect(config)
    return config


def expanded(config):
    """Settings with the home folder in place of a ~ at the start of a path; in RUN=~/run, not every shell does this."""
    paths = {field.name: value for field in fields(config) if isinstance(value := getattr(config, field.name), Path)}
    paths = {name: expanded_path(path) for name, path in paths.items()}
    return replace(config, weights=os.path.expanduser(config.weights), **paths)


def expanded_path(path):
    """See `expanded`."""
    return Path(os.path.expanduser(path))


def in_order_of_help(settings, script):
    """A class like `settings` whose fields have the order in which `--help` of a script lists them."""
    outputs, single_settings = FIRST_IN_HELP.get(script, ([], []))

    def place(name):
        if name not in vars(Config()):  # only this script has this option
            return 0
        return 1 if name in single_settings or any(affects(name, output) for output in outputs) else 2

    # tyro lists the options in the order of this dictionary. A subclass inherits the order of its parent's fields, and
    # `dataclasses` offers no other way to change it.
    ordered = type(settings.__name__, (settings,), {"__doc__": settings.__doc__})
    ordered.__dataclass_fields__ = dict(sorted(settings.__dataclass_fields__.items(), key=lambda item: place(item[0])))
    return ordered


def starting_point(options=None, run_dir=None):
    """Find the settings of a call before its options other than --preset, --config and --run-dir are applied.

    Args:
        options, run_dir: see `parse_args`.

    Returns:
        A `Config`; the file that it was read from, or None; and the defaults that were edited in config.py after that
        file was written, a dictionary from the name of a setting to its default of today.
    """
    choose = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    choose.add_argument("--preset", choices=get_args(Preset))
    choose.add_argument("--config", type=Path)
    choose.add_argument("--run-dir", "--run_dir", type=Path, default=run_dir or PRESETS[Config.preset].run_dir)
    chosen = choose.parse_known_args(options)[0]
    chosen.config, chosen.run_dir = chosen.config and expanded_path(chosen.config), expanded_path(chosen.run_dir)
    if chosen.preset and chosen.config:
        raise InputError("--preset and --config cannot be combined: give one of them")
    file, run_file = chosen.config, RunFolder(chosen.run_dir).settings
    if not chosen.preset and not chosen.config and run_file.exists():
        file = run_file
    if not file:
        return PRESETS[chosen.preset or Config.preset], None, {}
    saved, saved_defaults = load(file)
    start = as_config(saved, file)
    packed = RunFolder(file.parent).about.exists()  # its settings are final
    edited = {} if packed else edited_defaults(saved.get("preset"), saved_defaults)
    if "preset" in edited:
        return replace(PRESETS[Config.preset], run_dir=start.run_dir), file, edited  # as with --preset
    return replace(start, **edited), file, edited


def is_given(setting, words=None):
    """Whether a list of words, by default the command line, sets a setting."""
    options = [word.partition("=")[0].replace("_", "-") for word in (sys.argv[1:] if words is None else words)]
    name = setting.replace("_", "-")
    return f"--{name}" in options or f"--no-{name}" in options


def options_of_call(config, options=None, run_dir=None):
    """The options with which another script works on the same run, with the same settings.

    Args:
        config: the settings of this call.
        options: list of words that they were read from, in place of the command line.

    Returns:
        Dictionary from each option to its words, which begin with the option: --config or --preset, unless the settings
        come from config.json of the run folder; --run-dir; and every other option that changes a setting.
    """
    start, file, _ = starting_point(options, run_dir)
    words = {"--run-dir": ["--run-dir", str(config.run_dir)]}
    if config.config:
        words = {"--config": ["--config", str(config.config)]} | words
    elif file is None:
        words = {"--preset": ["--preset", config.preset]} | words
    before, now = as_json(start), as_json(config)
    for name, value in now.items():
        if value == before[name] or value is None or name in ("preset", *PER_CALL_SETTINGS):
            continue
        option = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
        values = [] if isinstance(value, bool) else value if isinstance(value, list) else [value]
        words[option] = [option, *map(str, values)]
    return words


def write_settings(config, path, leave_out=UNSAVED_SETTINGS):
    """Write the settings as a JSON file, and under "defaults" the defaults of today.

    Args:
        config: the settings.
        path: the file.
        leave_out: `PER_CALL_SETTINGS` for config.json of a run folder; otherwise it is the file beside an output.
    """
    settings = {name: value for name, value in as_json(config).items() if name not in leave_out}
    defaults = as_json(defaults_of(config.preset))
    settings["defaults"] = {name: defaults[name] for name in settings}
    write_json(path, settings)


def read_settings(path):
    """Read a file of settings; see `write_settings`.

    Returns:
        A `Config`. A setting that the file does not name has its value of `DEFAULTS`. If the file does not name its run
        folder, it is the folder of the file.

    Raises:
        InputError: if the file is missing or damaged, or holds something that is no setting.
    """
    settings, _ = load(path)
    return as_config(settings, path)


def load(path):
    """Read the JSON of a file of settings.

    Returns:
        Two dictionaries: the settings, and the defaults when the file was written (may be empty).

    Raises:
        InputError: if the file is missing, or its content is no dictionary.
    """
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        what = "a folder" if Path(path).is_dir() else "missing"
        raise InputError(f"{path} is {what}: --config takes a config.json of a run folder") from None
    except ValueError:
        saved = None
    if not isinstance(saved, dict):
        raise InputError(f"{path} holds no settings: remove it and give them as options")
    defaults = saved.pop("defaults", None)
    return saved, defaults if isinstance(defaults, dict) else {}


def as_config(saved, path):
    """Make a `Config` of the settings of a file, see `read_settings`."""
    known, values = {field.name for field in fields(Config)}, {"run_dir": Path(path).parent}
    for name, value in saved.items():
        if name not in known:
            raise InputError(f"{path} names {name}, which is no setting: remove it there")
        # The fold belongs to the call that wrote the file; files of older versions hold the unsaved settings too.
        if name in (*UNSAVED_SETTINGS, "fold"):
            continue
        values[name] = from_json(value, getattr(DEFAULTS, name))
        if values[name] is None and not (value is None and getattr(DEFAULTS, name) is None):
            raise InputError(f"{path} holds {name} = {value!r}: correct it or remove the file")
    return replace(DEFAULTS, **values)


def from_json(value, default):
    """Convert a value read from JSON to the type of a setting's default; None if it does not fit."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(map(str, value))
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, Path | None) and isinstance(value, str):
        return Path(value)
    return value if type(value) is type(default) else None


def defaults_of(preset):
    """The settings of a call whose only option is --preset."""
    return replace(PRESETS[preset], preset=Config.preset)


def edited_defaults(preset, saved_defaults):
    """The defaults of a preset that differ from the saved ones; see `starting_point`. Only saved ones are compared."""
    if preset not in PRESETS:
        return {}
    today = defaults_of(preset)
    return {
        name: getattr(today, name)
        for name, value in as_json(today).items()
        if saved_defaults.get(name, value) != value and name not in PER_CALL_SETTINGS
    }


def print_changed_settings(config, start_file, saved_file, edited=()):
    """Print which file the settings come from, if any, and which differ from a file.

    Args:
        config: the settings.
        start_file: the file that they start from, or None.
        saved_file: the file to compare them with.
        edited: names of the settings whose default was edited after that file was written.
    """
    saved, defaults = as_json(read_settings(saved_file)), as_json(defaults_of(config.preset))
    changes = ", ".join(
        f"{name} {as_option_text(saved[name])} -> {as_option_text(value)}"
        f"{' (edited in config.py)' if name in edited and value == defaults[name] else ''}"
        for name, value in as_json(config).items()
        if value != saved[name] and name not in PER_CALL_SETTINGS
    )
    if start_file:
        print(wrapped(f"settings of {start_file}{', except ' if changes else ''}{changes}"))
    elif changes:
        print(wrapped(f"settings that differ from {saved_file}: {changes}"))


def print_edits_without_effect(config):
    """Print which edited defaults of `Config` have no effect, because the preset sets these settings itself.

    docs/settings.md lists the defaults before any edit. Without that page nothing is printed.
    """
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", page.read_text(encoding="utf-8") if page.exists() else "", re.M)
    unedited, used, preset = dict(rows), as_json(config), as_json(PRESETS[config.preset])
    for name, default in as_json(Config()).items():
        text = as_option_text(default)
        edited = name not in ("preset", "run_dir") and text != unedited.get(name, text)
        if edited and default not in (preset[name], used[name]):
            sentence = (
                f"{name} = {as_option_text(used[name])}, not the edited default {text}: preset {config.preset} has a "
                f"value of its own"
            )
            print(wrapped(sentence))


def check(config):
    """Refuse invalid settings.

    Raises:
        InputError: naming the setting, its value and the valid values.
    """
    check_numbers(config)
    for field in fields(config):
        value = getattr(config, field.name)
        several = get_origin(field.type) is tuple
        kind = get_args(field.type)[0] if several else field.type
        if get_origin(kind) is not Literal:
            continue
        for choice in value if several else [value]:
            if choice not in get_args(kind):
                raise InputError(f"{field.name} = {choice!r} is not known: choose from {', '.join(get_args(kind))}")
        if several and (not value or len(set(value)) < len(value)):
            raise InputError(f"{field.name} = {' '.join(value) or 'nothing'}: name at least one, each once")
    if config.class_weights != "none" and (config.sampling_power or config.extra_data_dir):
        raise InputError(
            f"class_weights = {config.class_weights} goes neither with sampling_power nor with extra_data_dir, whose "
            f"loss keeps the true class frequencies: leave one of them out"
        )
    if config.run_dir.resolve() == config.data_dir.resolve():
        raise InputError(f"run_dir = {config.run_dir} is the folder of the data: choose another --run-dir")
    if config.folds == 1:
        raise InputError("folds = 1: take at least 2, or 0 for none")
    if config.decide_by in ("stacking", "temperature", "vote_oof") and not config.folds:
        raise InputError(f"decide_by = {config.decide_by} is fitted on out-of-fold predictions: give it --folds too")
    if config.fold is not None and config.fold > config.folds:
        raise InputError(f"fold = {config.fold}: it must be at most folds = {config.folds}")
    if config.extra_mask_dir and not config.extra_data_dir:
        raise InputError("extra_mask_dir holds masks of further images: name their folder with --extra-data-dir too")
    if config.unet_encoder == "none" and config.unet_image_size % 2 ** (config.unet_blocks - 1):
        raise InputError(
            f"unet_image_size = {config.unet_image_size} does not halve {config.unet_blocks - 1} times: "
            f"take a multiple of {2 ** (config.unet_blocks - 1)}"
        )


def check_numbers(settings):
    """Refuse numbers outside the bounds of their field, NaN and infinity; of `Config` or any other dataclass.

    Raises:
        InputError: naming the setting, its value and its bounds.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{field.name} = {value}: it must be a finite number")
        bounds = [text for text in getattr(field.type, "__metadata__", ()) if isinstance(text, str)]
        for sign, end in map(str.split, bounds):
            if value is not None and not COMPARE[sign](value, float(end)):
                raise InputError(f"{field.name} = {value}: it must be {' and '.join(bounds)}")
