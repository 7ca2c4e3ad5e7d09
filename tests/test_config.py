"""The command line of the six scripts, and the values behind it."""

import ast
import json
import re
import shutil
import sys
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest

from config import PRESETS, BackboneName, Config, Preset
from pipeline import command_line
from pipeline.settings import (
    PER_CALL_SETTINGS,
    check,
    check_numbers,
    is_given,
    parse_args,
    read_settings,
    write_settings,
)
from utils.errors import InputError

REPOSITORY = Path(__file__).parent.parent
SCRIPTS = ("seg_train.py", "seg_predict.py", "resize.py", "training.py", "cls_predict.py", "vote.py")

BACKBONE = '    backbone_name: BackboneName = "resnet50"\n'
EPOCHS = '    epochs: Annotated[int, ">= 1"] = '

# Ding et al. 2022, as far as it is published, and this repository's reading of the rest.
PUBLISHED = {
    "unet_image_size": 224,
    "unet_blocks": 5,
    "unet_filters": 32,
    "unet_batch_norm": False,
    "unet_loss": "bce",
    "unet_learning_rate": 0.0001,
    "unet_lr_factor": 0.5,
    "unet_lr_patience": 2,
    "unet_lr_min": 0.0000001,
    "unet_batch_size": 16,
    "unet_epochs": 50,
    "mask_sigma": 2,
    "mask_threshold": 0.5,
    "masks": "predicted",
    "crop_margin_px": 55,
    "crop_margin_ratio": 0,
    "crop_square": False,
    "image_size": 224,
    "weights": "imagenet",
    "se_position": "stages",
    "se_ratio": 16,
    "head_units": 128,
    "head_l1": 0.0001,
    "head_dropout": 0,
    "learning_rate": 0.0001,
    "batch_size": 32,
    "epochs": 100,
    "early_stopping_patience": 10,
    "class_weights": "none",
    "backbones": ("resnet50", "densenet169", "inception_v3", "inception_resnet_v2", "xception"),
    "vote_fit_split": "training",
    "vote_filters": 20,
    "vote_learning_rate": 0.001,
    "vote_epochs": 20,
}


def field_docstrings():
    """Dictionary from each field of Config to the string below it in the file."""
    tree = ast.parse((REPOSITORY / "config.py").read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config").body
    return {
        node.target.id: following.value.value
        for node, following in zip(body, [*body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign)
    }


@pytest.fixture(scope="module", params=SCRIPTS)
def help_page(request, run_script):
    """What `python SCRIPT --help` answers, with the imported modules on standard error."""
    return run_script("-X", "importtime", request.param, "--help", COLUMNS="100")


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """Function that reads the settings from some options, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def parse(*options):
        monkeypatch.setattr(sys, "argv", ["resize.py", *options])
        return parse_args("")

    return parse


@pytest.fixture
def edited(tmp_path):
    """Function that copies training.py and what it imports at first, with a line of config.py edited."""

    def edit(before, after):
        patterns = ("*.py", "data/*.py", "pipeline/*.py", "utils/*.py", "docs/*.md")
        for path in (path for pattern in patterns for path in REPOSITORY.glob(pattern)):
            name = path.relative_to(REPOSITORY)
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / name)
        text = (tmp_path / "config.py").read_text()
        assert text.count(before) == 1
        (tmp_path / "config.py").write_text(text.replace(before, after))
        return tmp_path

    return edit


def test_help_lists_every_setting_with_its_reason(help_page):
    assert help_page.returncode == 0
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", help_page.stdout).split())
    docstrings = field_docstrings()
    assert list(docstrings) == [field.name for field in fields(Config)]
    for name, docstring in docstrings.items():
        start = " ".join(docstring.split())[:40]
        metavar = r"(?:(?! --(?!no-)).)*"  # never across the next option
        assert re.search(rf" --{name.replace('_', '-')}[ ,]{metavar}{re.escape(start)}", text), name


def test_help_begins_with_the_scripts_docstring(help_page):
    first = help_page.stdout.split("options")[0]
    assert re.search(r"Stage \d of 6: ", first)
    assert re.search(r"^ +python \w+\.py --preset fine_tuned\b", first, re.M)
    assert re.search(r"^Reads ", first, re.M)
    assert re.search(r"^Writes ", first, re.M)


def test_help_needs_no_heavy_module(help_page):
    modules = {line.split("|")[-1].strip() for line in help_page.stderr.splitlines() if line.startswith("import time:")}
    assert "tyro" in modules  # the list is there
    assert not modules & {"keras", "tensorflow", "cv2", "pandas", "sklearn", "scipy"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--no-such-option", "1"], "--no-such-option"),
        (["stray"], "stray"),
        (["--pre", "sample"], "--pre"),
        (["--epochs", "many"], "--epochs"),
        (["--epochs", "1.5"], "--epochs"),
        (["--preset", "isic2018"], "isic2018"),
        (["--backbone-name", "vgg16"], "vgg16"),
        (["--backbones", "xception", "vgg16"], "vgg16"),
        (["--backbones", "xception", "xception"], "backbones = xception xception"),
        (["--splits"], "splits = nothing"),
        (["--workers", "0"], "workers = 0"),
        (["--seed", "-1"], "seed = -1"),
        (["--unet-image-size", "100"], "multiple of 16"),
        (["--unet-lr-factor", "1"], "unet_lr_factor = 1.0"),
        (["--mask-threshold", "1"], "mask_threshold = 1.0"),
        (["--mask-sigma", "-0.1"], "mask_sigma = -0.1"),
        (["--crop-margin-px", "-1"], "crop_margin_px = -1"),
        (["--image-size", "0"], "image_size = 0"),
        (["--learning-rate", "0"], "learning_rate = 0.0"),
        (["--folds", "1"], "folds = 1"),
        (["--run-dir", "here", "--data-dir", "./here"], "run_dir = here is the folder of the data"),
        (["--folds", "3", "--fold", "4"], "fold = 4"),
        (["--fold", "1"], "fold = 1"),
        (["--folds", "-2"], "folds = -2"),
        (["--stacking-c", "0"], "stacking_c = 0.0"),
        (["--decide-by", "stacking"], "decide_by = stacking"),
        (["--vote-seeds", "0"], "vote_seeds = 0"),
        (["--early-stopping-patience", "0"], "early_stopping_patience = 0"),
        (["--unet-encoder", "vgg16"], "vgg16"),
        (["--extra-mask-dir", "masks"], "name their folder with --extra-data-dir too"),
        (["--unet-blocks", "60"], "does not halve 59 times"),
        (["--seed", "4294967296"], "seed = 4294967296"),
        (["--se-lr-factor", "0"], "se_lr_factor = 0.0"),
        (["--learning-rate", "nan"], "learning_rate = nan"),
    ],
)
def test_wrong_usage_ends_with_code_2_and_names_what_is_wrong(options, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where a run folder would be made
    monkeypatch.setattr(sys, "argv", ["training.py", *options])
    reached = []
    with pytest.raises(SystemExit) as end:
        reached.append(command_line.start(""))
    assert end.value.code == 2
    assert named in capsys.readouterr().err
    assert not reached


def test_bad_value_is_one_sentence_on_standard_error(run_script):
    result = run_script("training.py", "--epochs", 0)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "training.py: error: epochs = 0: it must be >= 1\n"


def test_a_tilde_is_the_home_folder(parse, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse("--run-dir", "~/run", "--data-dir", "~/data", "--weights", "~/keras")
    assert (config.run_dir, config.data_dir) == (tmp_path / "run", tmp_path / "data")
    assert config.weights == str(tmp_path / "keras")


def test_whether_a_setting_is_given_is_known():
    for words in (["--test-time-augmentation"], ["--no-test-time-augmentation"], ["--test_time_augmentation=True"]):
        assert is_given("test_time_augmentation", words)
    assert not is_given("test_time_augmentation", ["--run-dir", "test-time-augmentation"])


def test_no_option_means_the_published_preset(parse):
    assert parse() == PRESETS["isic2017"]


def test_a_backbone_as_encoder_takes_any_side_whatever_the_blocks(parse):
    assert parse("--unet-encoder", "densenet169", "--unet-image-size", "100").unet_image_size == 100


def test_options_take_underscores_as_well(parse):
    assert parse("--backbone_name", "xception").backbone_name == "xception"


@pytest.mark.parametrize("options", [["--preset", "sample", "--epochs", "3"], ["--epochs", "3", "--preset=sample"]])
def test_options_win_over_the_preset_and_leave_the_rest(options, parse):
    config = parse(*options)
    assert config.epochs == 3
    differing = [f.name for f in fields(Config) if getattr(config, f.name) != getattr(PRESETS["sample"], f.name)]
    assert differing == ["epochs"]


@pytest.fixture
def kept(tmp_path):
    """A run folder that has settings, its name relative to the working folder."""
    write_settings(replace(PRESETS["sample"], epochs=7), tmp_path / "runs/x/config.json", PER_CALL_SETTINGS)
    return Path("runs/x")


def test_a_run_folders_own_settings_hold_and_it_is_said(parse, kept, capsys):
    assert parse("--run-dir", str(kept)) == replace(PRESETS["sample"], epochs=7, run_dir=kept)
    assert capsys.readouterr().out == "settings of runs/x/config.json\n"


def test_a_file_of_settings_needs_no_other_option_and_an_option_beside_it_is_named(parse, kept, tmp_path, capsys):
    config = parse("--config", str(kept / "config.json"), "--image-size", "96")
    expected = replace(PRESETS["sample"], epochs=7, image_size=96, run_dir=kept, config=kept / "config.json")
    assert config == expected
    assert "settings of runs/x/config.json, except image_size 80 -> 96" in capsys.readouterr().out
    shutil.copytree(tmp_path / kept, tmp_path / "copy")
    assert parse("--config", "copy/config.json").run_dir == Path("copy"), "a copied run would write into the original"


def test_a_preset_beside_a_runs_settings_holds_and_what_differs_is_named(parse, kept, capsys):
    assert parse("--preset", "sample", "--run-dir", str(kept)) == replace(PRESETS["sample"], run_dir=kept)
    assert capsys.readouterr().out == "settings that differ from runs/x/config.json: epochs 7 -> 6\n"
    parse("--preset", "sample", "--run-dir", str(kept), "--epochs", "7", "--backbone-name", "xception", "--overwrite")
    assert capsys.readouterr().out == ""


def test_a_default_edited_after_the_first_stage_counts_like_an_option(parse, kept, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "sample", replace(PRESETS["sample"], epochs=9, batch_size=4))
    config = parse("--run-dir", str(kept))
    assert (config.epochs, config.batch_size, config.vote_epochs) == (9, 4, PRESETS["sample"].vote_epochs)
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("settings of runs/x/config.json, except ")
    assert "epochs 7 -> 9 (edited in config.py)" in said
    assert "batch_size 16 -> 4 (edited in config.py)" in said
    assert parse("--run-dir", str(kept), "--epochs", "5").epochs == 5
    assert "epochs 7 -> 5" in (said := capsys.readouterr().out)
    assert said.count("edited in config.py") == 1, "of the batch size alone"
    assert parse("--config", str(kept / "config.json")).epochs == 9
    assert read_settings(kept / "config.json").epochs == 7


def test_settings_mended_by_hand_and_those_of_an_older_version_are_no_edited_defaults(parse, kept):
    settings = json.loads((kept / "config.json").read_text())
    (kept / "config.json").write_text(json.dumps(settings | {"epochs": 11}))
    assert parse("--run-dir", str(kept)).epochs == 11
    del settings["defaults"]
    (kept / "config.json").write_text(json.dumps(settings))
    assert parse("--run-dir", str(kept)).epochs == 7


def test_another_default_preset_counts_after_the_first_stage(parse, kept, monkeypatch, capsys):
    monkeypatch.setattr(Config, "preset", "fine_tuned")
    assert parse("--run-dir", str(kept)) == replace(PRESETS["fine_tuned"], run_dir=kept)
    assert "preset sample -> fine_tuned (edited in config.py)" in capsys.readouterr().out


def test_an_edited_default_that_a_preset_overrides_is_named(edited, run_script):
    folder = edited(f"{EPOCHS}100\n", f"{EPOCHS}77\n")
    (folder / "show.py").write_text("from pipeline.settings import parse_args\nprint(parse_args('').epochs)")
    named = "epochs = 6, not the edited default 77: preset sample has a value of its own\n"
    assert run_script(folder / "show.py", "--preset", "sample").stdout == f"{named}6\n"
    assert run_script(folder / "show.py").stdout == "77\n"
    assert run_script(folder / "show.py", "--preset", "isic2017_256").stdout == "77\n"


def test_class_weights_beside_a_corrected_loss_are_refused(parse):
    for options in (["--sampling-power", "0.5"], ["--extra-data-dir", "x"]):
        with pytest.raises(InputError, match="class_weights = balanced goes neither with sampling_power nor"):
            parse("--class-weights", "balanced", *options)


def test_what_is_true_of_one_call_is_not_kept(parse, tmp_path, capsys):
    config = replace(PRESETS["sample"], overwrite=True, backbone_name="xception", folds=3, fold=2)
    write_settings(config, tmp_path / "runs/x/config.json", PER_CALL_SETTINGS)
    config = parse("--run-dir", "runs/x")
    assert (config.overwrite, config.backbone_name, config.folds, config.fold) == (False, "resnet50", 3, None)


def test_two_places_to_start_from_and_damaged_ones_are_refused(parse, kept):
    with pytest.raises(InputError, match="--preset and --config"):
        parse("--preset", "sample", "--config", str(kept / "config.json"))
    (kept / "config.json").write_text("")
    with pytest.raises(InputError, match=r"runs/x/config.json holds no settings"):
        parse("--run-dir", str(kept))


def test_every_preset_is_sound_and_knows_its_name():
    assert tuple(PRESETS) == get_args(Preset)
    for name, config in PRESETS.items():
        check(config)
        assert config.preset == name
    assert len({config.run_dir for config in PRESETS.values()}) == len(PRESETS)


def test_every_number_has_a_lower_bound_and_a_default_within_its_bounds():
    for field in fields(Config):
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert get_origin(field.type) is Annotated, field.name
            assert field.type.__metadata__[0].split()[0] in (">", ">="), field.name
    check_numbers(Config())


@pytest.mark.parametrize(("value", "within"), [(0, False), (0.1, True), (1, True), (1.1, False), (None, True)])
def test_bounds_are_checked_as_they_are_written(value, within):
    made = make_dataclass("Manifest", [("share", Annotated[float | None, "> 0", "<= 1"])])(value)
    if within:
        check_numbers(made)
    else:
        with pytest.raises(InputError, match=rf"share = {value}: it must be > 0 and <= 1$"):
            check_numbers(made)


def test_default_preset_is_the_published_protocol():
    assert {name: getattr(PRESETS["isic2017"], name) for name in PUBLISHED} == PUBLISHED


def test_edited_default_backbone_holds_for_every_preset(edited, run_script):
    folder = edited(BACKBONE, BACKBONE.replace("resnet50", "xception"))
    (folder / "show.py").write_text("from config import PRESETS\nprint(*[p.backbone_name for p in PRESETS.values()])")
    assert run_script(folder / "show.py").stdout.split() == ["xception"] * len(PRESETS)


def test_default_edited_to_an_unknown_backbone_is_refused(edited, run_script):
    result = run_script(
        edited(BACKBONE, BACKBONE.replace("resnet50", "resnet51")) / "training.py", "--preset", "sample"
    )
    assert result.returncode == 2
    assert result.stderr.startswith("training.py: error: backbone_name = 'resnet51' is not known")
    assert all(name in result.stderr for name in get_args(BackboneName))
    assert result.stderr.count("\n") == 1
