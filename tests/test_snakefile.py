"""The Snakefile: which jobs there are, and that killed, refused and repeated ones lose nothing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pandas as pd
import pytest

from tests.conftest import BACKBONES, BUDGET, REPOSITORY

pytest.importorskip("snakemake")
yaml = pytest.importorskip("yaml")  # which Snakemake brings along

RULES = ("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote", "report")
# Python imports this module first. It kills the U-Net's training at the start of the second write of the history, so
# that the first epoch is on the disk and the second is not.
KILL_AFTER_THE_FIRST_EPOCH = """
import os, signal, sys

written = []

def kill(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("checkpoints/history.csv"):
        written.append(arguments[1])
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

if sys.orig_argv[1:] and sys.orig_argv[1].endswith("seg_train.py"):
    sys.addaudithook(kill)
"""


@pytest.fixture(scope="module")
def words(tiny_sample):
    """Function that gives the command line of Snakemake for a run folder, beside which it keeps its notes."""

    def words(run_dir, *options, arguments=(), data_dir=None):
        options = map(str, [*BUDGET, "--data-dir", data_dir or tiny_sample, *options, "--run-dir", run_dir])
        command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--cores", 2]
        command += ["--directory", run_dir.parent, *arguments, "--config", f"options={shlex.join(options)}"]
        return list(map(str, command))

    return words


@pytest.fixture(scope="module")
def snakemake(words):
    """Function that runs Snakemake to its end: (exit code, output of Snakemake and its jobs)."""

    def run(*args, environment=None, **options):
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = os.environ | (environment or {})
        result = subprocess.run(words(*args, **options), env=environment, timeout=600, **output)
        return result.returncode, result.stdout

    return run


def files(folder, *patterns):
    """Dictionary from the place of each file that fits one of the patterns to its content, a network's weights."""
    found = {}
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        source = zipfile.Path(path, "model.weights.h5") if path.suffix == ".keras" else path
        found[str(path.relative_to(folder))] = source.read_bytes()
    return found


def test_without_masks_no_unet_is_trained(snakemake, tmp_path):
    code, said = snakemake(tmp_path / "run", "--masks", "none", arguments=["--dry-run"])
    assert code == 0, said
    assert not re.search(r"^seg_(train|predict) +1$", said, re.M)
    assert re.search(r"^resize +1$", said, re.M)


def test_every_network_is_a_job(snakemake, tmp_path):
    folds = 5
    code, said = snakemake(tmp_path / "run", "--folds", folds, arguments=["--dry-run", "--printshellcmds"])
    assert code == 0, said
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.M)}
    networks = len(BACKBONES) * (folds + 1)
    expected = {**dict.fromkeys(RULES, 1), "training": networks, "cls_predict": len(BACKBONES), "all": 1}
    assert jobs == {**expected, "total": sum(expected.values())}
    for name in BACKBONES:
        for fold in range(folds + 1):
            assert re.search(rf"training\.py .* --backbone-name {name} --fold {fold} && date", said, re.M)
        assert re.search(rf"cls_predict\.py .* --backbone-name {name} && date", said, re.M)
    assert not (tmp_path / "run").exists()


def test_a_bad_option_is_named_before_any_job_starts(snakemake, tmp_path):
    code, said = snakemake(tmp_path / "run", "--epochs", 0)
    assert code != 0
    assert "epochs = 0: it must be >= 1" in said
    assert not (tmp_path / "run").exists()


def test_overwrite_is_refused_as_a_job_may_be_tried_again(snakemake, tmp_path):
    code, said = snakemake(tmp_path / "run", "--overwrite", arguments=["--dry-run"])
    assert code != 0
    assert "a job that Snakemake tries again would start anew" in said


def test_a_run_folder_that_snakemake_would_take_for_a_wildcard_is_refused(snakemake, tmp_path):
    code, said = snakemake(tmp_path / "run{1}", arguments=["--dry-run"])
    assert code != 0
    assert "Snakemake takes braces for wildcards: choose another folder" in said


def test_a_dry_run_names_the_data_that_is_missing(snakemake, tmp_path):
    code, said = snakemake(tmp_path / "run", arguments=["--dry-run"], data_dir=tmp_path / "data")
    assert code != 0
    assert f"{tmp_path / 'data' / 'ISIC-2017_Test_v2_Data'} is missing" in said


def test_the_profile_gives_every_rule_its_resources():
    resources = yaml.safe_load((REPOSITORY / "profiles/default/config.yaml").read_text())["set-resources"]
    assert set(resources) == set(RULES)
    assert all(set(needs) == {"gpu", "mem_mb", "runtime"} for needs in resources.values())


def test_a_run_made_by_hand_is_taken_over_and_nothing_is_started_twice(snakemake, finished, tiny_sample, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "my run")
    data = {"data_dir": shutil.copytree(tiny_sample, tmp_path / "{data}")}
    before = files(run_dir, "**/*.keras", "**/*.csv")
    code, said = snakemake(run_dir, **data)
    assert code == 0, said
    for name in ("unet", "masks_test", "crops_test", *BACKBONES, "predictions_xception_test", "vote"):
        assert f"{name}: nothing changed since it was made" in said
    assert (run_dir / "results" / "report.html").exists(), "which was not made by hand"
    assert files(run_dir, "**/*.keras", "**/*.csv") == before
    assert "Nothing to be done" in snakemake(run_dir, **data)[1]
    code, said = snakemake(run_dir, "--vote-epochs", 4, arguments=["--dry-run"], **data)
    assert "Params have changed since last execution" in said
    # As if the graph had been stopped behind the vote, which was made anew: the report is started again.
    (run_dir / "manifests/vote.done").write_text("later\n")
    code, said = snakemake(run_dir, arguments=["--dry-run"], **data)
    assert re.search(r"^report +1$", said, re.M), said
    assert not re.search(r"^vote +1$", said, re.M), said
    # Data that changed in place: every job looks whether it is up to date.
    os.utime(next(data["data_dir"].glob("*_Part1_GroundTruth/*.png")))
    code, said = snakemake(run_dir, arguments=["--dry-run"], **data)
    assert re.search(r"^total +10$", said, re.M), said


@pytest.mark.parametrize("options", ["--run-dir 'runs/my run'", "--run-dir \"a b' c"])
def test_a_quote_that_snakemake_takes_away_is_put_back(words, tiny_sample, tmp_path, options):
    options = f"--data-dir {tiny_sample} {options}"
    command = [*words(tmp_path / "run", arguments=["--dry-run"])[:-1], f"options={options}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "my run/manifests/vote.done" in result.stdout or "a b' c/manifests/vote.done" in result.stdout


def test_a_restart_goes_on_with_a_killed_training(snakemake, tmp_path):
    run_dir = tmp_path / "run"
    target = {"arguments": [f"{run_dir}/manifests/seg_train.done"]}
    (tmp_path / "sitecustomize.py").write_text(KILL_AFTER_THE_FIRST_EPOCH)
    code, said = snakemake(run_dir, environment={"PYTHONPATH": str(tmp_path)}, **target)
    assert code != 0, said
    assert not (run_dir / "unet/unet.keras").exists()
    assert list(pd.read_csv(run_dir / "unet/checkpoints/history.csv")["epoch"]) == [1]
    code, said = snakemake(run_dir, **target)
    assert code == 0, said
    assert "going on after epoch 1" in said
    assert list(pd.read_csv(run_dir / "unet/history.csv")["epoch"]) == [1, 2, 3]
    assert (run_dir / "unet/unet.keras").exists()


def test_a_forgotten_option_harms_nothing_and_is_told_again(finished, snakemake, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run")
    before = files(run_dir, "unet/*.*")
    target = f"{run_dir}/manifests/seg_train.done"
    code, said = snakemake(run_dir, "--unet-learning-rate", 0.002, arguments=[target, "--force"])
    assert code != 0
    assert "was made with unet_learning_rate = 0.02, not 0.002: run `python seg_train.py --overwrite" in said
    assert files(run_dir, "unet/*.*") == before
    # Of a file that a refused job left, Snakemake would say that it is finished.
    code, said = snakemake(run_dir, arguments=[target, "--dry-run"])
    assert re.search(r"^seg_train +1$", said, re.M)
