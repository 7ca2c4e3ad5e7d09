"""What a terminal shows: no notes of other libraries, commands to paste, tables, progress."""

import os
import pty
import subprocess
import sys
from dataclasses import replace

import pytest

from config import PRESETS, Config
from data.classes import ISIC_2017
from evaluation.bootstrap import measure
from evaluation.tables import aligned_table
from pipeline import finished_run
from pipeline.paths import RunFolder
from pipeline.settings import in_order_of_help, options_of_call, parse_args, write_settings
from tests.conftest import REPOSITORY
from tests.test_metrics import LABELS, PROBABILITIES
from utils import errors, progress
from utils.errors import with_options

# ---- notes of other libraries ----------------------------------------------------------------------------------------

NOTES = """
import os
from pipeline import command_line
config = command_line.start("")
os.write(2, b"a note of a library\\n")
{imports}
command_line.run(lambda config: os.write(2, b"ours\\n"), config)
"""


def run_code(code, tmp_path, **environment):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("chosen", "used"), [(None, "1"), ("0", "0")])
def test_scripts_turn_tensorflows_onednn_kernels_on_unless_the_user_chose(chosen, used, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    code = "from pipeline import command_line; command_line.start(''); import os; print(os.environ[{!r}])"
    environment = {"TF_ENABLE_ONEDNN_OPTS": chosen} if chosen else {}
    assert run_code(code.format("TF_ENABLE_ONEDNN_OPTS"), tmp_path, **environment).stdout == f"{used}\n"


def test_notes_during_imports_are_not_shown(tmp_path):
    result = run_code(NOTES.format(imports="import pipeline.devices"), tmp_path)
    assert (result.returncode, result.stderr) == (0, "ours\n")


@pytest.mark.parametrize("failure", ["raise ValueError('a fault')", "raise SystemExit(1)", "import no_such_module"])
def test_notes_are_shown_where_an_import_fails(tmp_path, failure):
    result = run_code(NOTES.format(imports=failure), tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("a note of a library\n")


def test_notes_are_shown_where_the_gpu_is_not_used(tmp_path):
    pretend = "import pipeline.devices\npipeline.devices.nvidia_gpus = lambda: ['/dev/nvidia0']"
    result = run_code(NOTES.format(imports=pretend), tmp_path, KERAS_BACKEND="tensorflow")
    assert "a note of a library\n" in result.stderr


def test_an_interruption_starts_on_a_line_of_its_own(tmp_path):
    code = "import os, signal; from pipeline import command_line; command_line.start('');"
    code += "os.write(1, b'bar 50 %'); os.kill(os.getpid(), signal.SIGINT)"
    parent, child = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path, stdout=child, stderr=child)
    process.wait(timeout=60)
    os.close(child)
    shown = os.read(parent, 1000).decode().replace("\r", "")
    os.close(parent)
    assert process.returncode == 130
    assert shown == "bar 50 %\n-c: interrupted: run the same command again to go on\n"


# ---- commands to paste -----------------------------------------------------------------------------------------------


def test_a_command_in_an_error_has_the_options_of_the_call(monkeypatch):
    words = ["--preset", "sample", "--run-dir", "runs/my run", "--epochs", "9", "--no-augment-flips", "--overwrite"]
    words += ["--splits", "training", "validation", "--backbone-name", "xception"]
    monkeypatch.setattr(errors, "options_for_others", options_of_call(parse_args("", options=words), words))
    common = "--preset sample --run-dir 'runs/my run' --splits training validation --no-augment-flips --epochs 9"
    expected = f"x is missing: run `python training.py --backbone-name resnet50 {common}` first"
    assert with_options("x is missing: run `python training.py --backbone-name resnet50` first") == expected
    without = common.removesuffix(" --epochs 9")
    assert with_options("`python vote.py --epochs 3`") == f"`python vote.py --epochs 3 {without}`"
    for untouched in ("pass --overwrite", "run `python -m data.draw_sample`", "`pip install x`"):
        assert with_options(untouched) == untouched


def test_settings_of_the_run_folder_are_not_repeated(tmp_path):
    write_settings(PRESETS["sample"], RunFolder(tmp_path).settings)
    words = ["--run-dir", str(tmp_path), "--epochs", "9"]
    options = options_of_call(parse_args("", options=words), words)
    assert list(options.values()) == [["--run-dir", str(tmp_path)], ["--epochs", "9"]]
    words = ["--config", str(RunFolder(tmp_path).settings), "--run-dir", "x"]
    options = options_of_call(parse_args("", options=words), words)
    assert list(options) == ["--config", "--run-dir"]


def test_what_is_pasted_gives_the_same_settings():
    words = ["--preset", "fine_tuned", "--data-dir", "a b", "--fold", "2", "--folds", "3", "--backbones", "xception"]
    config = parse_args("", options=words)
    pasted = [word for option in options_of_call(config, words).values() for word in option]
    assert parse_args("", options=pasted) == replace(config, fold=None)


@pytest.mark.parametrize(
    ("script", "first", "later"),
    [
        ("resize.py", "crop_margin_px", "unet_epochs"),
        ("training.py", "learning_rate", "unet_epochs"),
        ("seg_train.py", "unet_epochs", "preset"),
        ("vote.py", "vote_epochs", "learning_rate"),
        ("seg_train.py", "unet_epochs", "unet"),  # a setting may be called as a kind of output is
        ("seg_predict.py", "unet", "masks"),
        ("resize.py", "masks", "unet"),
    ],
)
def test_the_help_begins_with_the_settings_of_the_script(script, first, later):
    names = list(in_order_of_help(Config, script).__dataclass_fields__)
    assert sorted(names) == sorted(Config.__dataclass_fields__)
    assert names.index(first) < names.index("preset") <= names.index(later)


# ---- the vote's table, voters, crops ---------------------------------------------------------------------------------


def test_the_table_of_the_vote_is_aligned_and_narrow():
    names = ("inception_resnet_v2", "best single (inception_resnet_v2)", "mean")
    text = aligned_table(measure(LABELS, dict.fromkeys(names, PROBABILITIES), None, 2, classes=ISIC_2017))
    head, first, second = text.splitlines()
    assert head.split() == ["mean", "AUC", "melanoma", "keratosis", "accuracy"]
    assert first.split() == ["inception_resnet_v2", "0.783", "0.733", "0.833", "0.500"]
    assert second.split()[0] == "mean"
    assert len(head) == len(first) == len(second) < 100


def test_the_voters_are_those_of_the_vote(tmp_path):
    run, two = RunFolder(tmp_path), ("inception_v3", "xception")
    config = replace(PRESETS["sample"], run_dir=tmp_path)
    assert finished_run.voters(config) == config.backbones
    write_settings(config, run.settings)
    write_settings(replace(config, backbones=two), run.vote_settings)
    assert finished_run.voters(config) == two
    assert finished_run.voters(replace(config, backbones=("resnet50",))) == ("resnet50",)  # refused later


def test_a_vote_shows_which_seed_it_fits(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0)
    assert list(progress.numbered(range(3), "vote: seed")) == [0, 1, 2]
    assert "vote: seed 2 of 3" in capsys.readouterr().err
