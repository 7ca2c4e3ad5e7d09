"""The Snakefile: which jobs there are, and that killed, refused and repeated ones lose nothing."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import BACKBONES, BUDGET, REPOSITORY

pytest.importorskip("snakemake")
yaml = pytest.importorskip("yaml")  # which Snakemake brings along

RULES = ("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote", "report")
# Stands in for a training that is killed once, and goes on when it is started again.
KILLED_ONCE = """
import os, pathlib, signal, sys

checkpoint = pathlib.Path(sys.argv[sys.argv.index("--run-dir") + 1], "unet/checkpoints/history.csv")
if not checkpoint.exists():
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def words(tiny_sample):
    """Function that gives the command line of Snakemake for a run folder, beside which it keeps its notes."""

    def words(run_dir, *options, arguments=(), data_dir=None, code=REPOSITORY):
        options = map(str, [*BUDGET, "--data-dir", data_dir or tiny_sample, *options, "--run-dir", run_dir])
        command = [sys.executable, "-m", "snakemake", "--snakefile", code / "Snakefile", "--cores", 2]
        command += ["--directory", run_dir.parent, *arguments, "--config", f"options={shlex.join(options)}"]
        return list(map(str, command))

    return words


@pytest.fixture(scope="module")
def snakemake(words):
    """Function that runs Snakemake to its end: (exit code, output of Snakemake and its jobs)."""

    def run(*args, **options):
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        result = subprocess.run(words(*args, **options), env=environment, timeout=600, **output)
        return result.returncode, result.stdout

    return run


@pytest.fixture
def code(tmp_path):
    """Folder of the Snakefile and, where only Snakemake is tested, of empty scripts, which do nothing."""
    folder = tmp_path / "code"
    folder.mkdir()
    shutil.copy(REPOSITORY / "Snakefile", folder)
    for rule in RULES:
        (folder / f"{rule}.py").touch()
    return folder


def files(folder, *patterns):
    """Dictionary from the place of each file that fits one of the patterns to its content, a network's weights."""
    found = {}
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        source = zipfile.Path(path, "model.weights.h5") if path.suffix == ".keras" else path
        found[str(path.relative_to(folder))] = source.read_bytes()
    return found


def test_without_masks_no_unet_is_trained(snakemake, tmp_path):
    status, said = snakemake(tmp_path / "run", "--masks", "none", arguments=["--dry-run"])
    assert status == 0, said
    assert not re.search(r"^seg_(train|predict) +1$", said, re.M)
    assert re.search(r"^resize +1$", said, re.M)


def test_every_network_is_a_job(snakemake, tmp_path):
    folds = 5
    status, said = snakemake(tmp_path / "run", "--folds", folds, arguments=["--dry-run", "--printshellcmds"])
    assert status == 0, said
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", said, re.M)}
    networks = len(BACKBONES) * (folds + 1)
    expected = {**dict.fromkeys(RULES, 1), "training": networks, "cls_predict": len(BACKBONES), "all": 1}
    assert jobs == {**expected, "total": sum(expected.values())}
    for name in BACKBONES:
        for fold in range(folds + 1):
            assert re.search(rf"training\.py .* --backbone-name {name} --fold {fold} && date", said, re.M)
        assert re.search(rf"cls_predict\.py .* --backbone-name {name} && date", said, re.M)
    for script in ("seg_train", "seg_predict", "resize", "vote", "report"):
        assert re.search(rf"{script}\.py .* && date", said, re.M)
    assert not (tmp_path / "run").exists()


def test_a_bad_option_is_named_before_any_job_starts(snakemake, tmp_path):
    status, said = snakemake(tmp_path / "run", "--epochs", 0)
    assert status != 0
    assert "epochs = 0: it must be >= 1" in said
    assert not (tmp_path / "run").exists()


def test_overwrite_is_refused_as_a_job_may_be_tried_again(snakemake, tmp_path):
    status, said = snakemake(tmp_path / "run", "--overwrite", arguments=["--dry-run"])
    assert status != 0
    assert "a job that Snakemake tries again would start anew" in said


def test_a_run_folder_that_snakemake_would_take_for_a_wildcard_is_refused(snakemake, tmp_path):
    status, said = snakemake(tmp_path / "run{1}", arguments=["--dry-run"])
    assert status != 0
    assert "Snakemake takes braces for wildcards: choose another folder" in said


def test_a_dry_run_names_the_data_that_is_missing(snakemake, tmp_path):
    status, said = snakemake(tmp_path / "run", arguments=["--dry-run"], data_dir=tmp_path / "data")
    assert status != 0
    assert f"{tmp_path / 'data' / 'ISIC-2017_Test_v2_Data'} is missing" in said


def test_the_profile_gives_every_rule_its_resources():
    resources = yaml.safe_load((REPOSITORY / "profiles/default/config.yaml").read_text())["set-resources"]
    assert set(resources) == set(RULES)
    assert all(set(needs) == {"gpu", "mem_mb", "runtime"} for needs in resources.values())


def test_a_run_made_by_hand_is_taken_over(snakemake, finished, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "my run")
    before = files(run_dir, "**/*.keras", "**/*.csv")
    status, said = snakemake(run_dir, arguments=[f"{run_dir}/manifests/xception_predictions.done"])
    assert status == 0, said
    for name in ("unet", "masks_test", "crops_test", "xception", "predictions_xception_test"):
        assert f"{name}: nothing changed since it was made" in said
    assert files(run_dir, "**/*.keras", "**/*.csv") == before


def test_nothing_is_started_twice(snakemake, code, tiny_sample, tmp_path):
    run_dir = tmp_path / "my run"
    how = {"data_dir": shutil.copytree(tiny_sample, tmp_path / "{data}"), "code": code}
    status, said = snakemake(run_dir, **how)
    assert status == 0, said
    assert "Nothing to be done" in snakemake(run_dir, **how)[1]
    _, said = snakemake(run_dir, "--vote-epochs", 4, arguments=["--dry-run"], **how)
    assert "Params have changed since last execution" in said
    # As if the graph had been stopped behind the vote, which was made anew: the report is started again.
    (run_dir / "manifests/vote.done").write_text("later\n")
    _, said = snakemake(run_dir, arguments=["--dry-run"], **how)
    assert re.search(r"^report +1$", said, re.M), said
    assert not re.search(r"^vote +1$", said, re.M), said
    # Data that changed in place: every job looks whether it is up to date.
    os.utime(next(how["data_dir"].glob("*_Part1_GroundTruth/*.png")))
    _, said = snakemake(run_dir, arguments=["--dry-run"], **how)
    assert re.search(r"^total +10$", said, re.M), said


@pytest.mark.parametrize("options", ["--run-dir 'runs/my run'", "--run-dir \"a b' c"])
def test_a_quote_that_snakemake_takes_away_is_put_back(words, tiny_sample, tmp_path, options):
    options = f"--data-dir {tiny_sample} {options}"
    command = [*words(tmp_path / "run", arguments=["--dry-run"])[:-1], f"options={options}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "my run/manifests/vote.done" in result.stdout or "a b' c/manifests/vote.done" in result.stdout


def test_a_checkpoint_of_a_killed_training_stands_for_the_restart(snakemake, code, tmp_path):
    (code / "seg_train.py").write_text(KILLED_ONCE)
    run_dir = tmp_path / "run"
    target = run_dir / "manifests/seg_train.done"
    status, said = snakemake(run_dir, arguments=[target], code=code)
    assert status != 0, said
    assert not target.exists()
    assert (run_dir / "unet/checkpoints/history.csv").exists()
    status, said = snakemake(run_dir, arguments=[target], code=code)
    assert status == 0, said
    assert target.exists()


def test_a_refused_job_starts_again(snakemake, code, tmp_path):
    (code / "seg_train.py").write_text("import sys; sys.exit('refused' if '0.002' in sys.argv else 0)")
    run_dir = tmp_path / "run"
    target = run_dir / "manifests/seg_train.done"
    assert snakemake(run_dir, arguments=[target], code=code)[0] == 0
    status, said = snakemake(run_dir, "--unet-learning-rate", 0.002, arguments=[target], code=code)
    assert status != 0
    assert "refused" in said
    # Of a file that a refused job left, Snakemake would say that it is finished.
    _, said = snakemake(run_dir, arguments=[target, "--dry-run"], code=code)
    assert re.search(r"^seg_train +1$", said, re.M)
