"""`make run`: which scripts it runs, and what it prints of them."""

import re
import shutil
import sys
from dataclasses import replace

import pytest

from config import PRESETS, Config
from data.official import label_table
from pipeline import all_stages
from pipeline.paths import RunFolder
from pipeline.settings import parse_args
from utils.errors import InputError

# A script that prints two lines, and changes a manifest or ends with a code as its options say.
SCRIPT = """
import pathlib, sys
run_dir, what = pathlib.Path(sys.argv[sys.argv.index("--run-dir") + 1]), sys.argv[-1]
print("read nothing")
if what == "work":
    (run_dir / "manifests").mkdir(parents=True, exist_ok=True)
    with open(run_dir / "manifests" / "work.jsonl", "a") as file:
        file.write("made")
print("the end")
sys.exit(3 if what == "fail" else 0)
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Function that runs a job of a script as above and gives what is printed."""
    monkeypatch.setattr(all_stages, "REPOSITORY", tmp_path)
    config = replace(Config(), run_dir=tmp_path / "run")

    def run(what, script="training.py", several=False):
        (tmp_path / script).write_text(SCRIPT)
        job = all_stages.Job("stage 4 of 6, network 2 of 5", script, [what])
        all_stages.run(job, config, ["--run-dir", str(config.run_dir)], several)
        return capfd.readouterr().out

    return run


def test_what_a_script_prints_stands_below_its_stage(run):
    assert run("work") == "\nstage 4 of 6, network 2 of 5: training.py work\nread nothing\nthe end\n"
    assert run("work", several=True).splitlines()[-2:] == ["2: read nothing", "2: the end"]


def test_a_script_with_nothing_to_do_is_a_line(run):
    assert run("rest") == "stage 4 of 6, network 2 of 5: training.py rest: nothing changed\n"
    assert run("rest", "report.py").splitlines()[1:] == ["the end"]  # the address of the page


def test_a_script_that_fails_is_shown_and_ends_the_run(run, capfd):
    with pytest.raises(all_stages.StageFailed) as failure:
        run("fail")
    assert failure.value.args == (3,)
    assert capfd.readouterr().out.endswith("read nothing\nthe end\n")


@pytest.fixture
def ran(monkeypatch):
    """Function that runs all stages with some options, and gives what would have been run, or the exit code."""

    def run_all(*options, fails=""):
        jobs = []

        def note(job, config, words, several=False):
            jobs.append((job.title, job.script, parse_args("", options=[*words, *job.options])))
            if job.script == fails:
                raise all_stages.StageFailed(2)

        monkeypatch.setattr(all_stages, "run", note)
        monkeypatch.setattr(all_stages, "check_images_and_labels", lambda config: None)
        monkeypatch.setattr(sys, "argv", ["all_stages", *options])
        code = 0
        try:
            all_stages.main()
        except SystemExit as end:
            code = end.code
        return code, jobs

    return run_all


def test_a_run_is_all_stages_with_every_backbone_and_the_report(ran, capsys):
    code, jobs = ran("--preset", "sample")
    names = Config().backbones
    networks = [(script, name) for name in names for script in ("training.py", "cls_predict.py")]
    once = [(script, "resnet50") for script in ("seg_train.py", "seg_predict.py", "resize.py")]
    last = [("vote.py", "resnet50"), ("report.py", "resnet50")]
    assert [(script, config.backbone_name) for _, script, config in jobs] == [*once, *networks, *last]
    assert all(replace(config, backbone_name="resnet50") == PRESETS["sample"] for *_, config in jobs)
    assert jobs[6][0] == "stage 5 of 6, network 2 of 5"
    assert code == 0
    assert re.fullmatch(r"total time: 0 min \d+ s\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "left_out"),
    [(["--unet", "runs/other"], ["seg_train.py"]), (["--masks", "none"], ["seg_train.py", "seg_predict.py"])],
)
def test_no_unet_is_trained_where_none_is_needed(ran, options, left_out):
    _, jobs = ran("--preset", "sample", *options)
    first = [script for _, script, _ in jobs][: 3 - len(left_out)]
    assert first == [script for script in ("seg_train.py", "seg_predict.py", "resize.py") if script not in left_out]


def test_a_unet_that_was_copied_before_is_not_trained(ran, monkeypatch):
    monkeypatch.setattr(all_stages, "origin_of_unet", lambda config: "copied")
    assert ran("--preset", "sample")[1][0][1] == "seg_predict.py"


def test_labels_are_checked_before_the_first_stage(monkeypatch, tiny_sample, tmp_path):
    data_dir = shutil.copytree(tiny_sample, tmp_path / "data")
    label_table(data_dir, "validation").unlink()
    monkeypatch.setattr(all_stages, "run", lambda *_: pytest.fail("a stage began"))
    options = ["--preset", "sample", "--data-dir", str(data_dir), "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["all_stages", *options])
    with pytest.raises(InputError, match=label_table(data_dir, "validation").name):
        all_stages.main()


def test_trainings_side_by_side_are_the_same(ran):
    _, jobs = ran("--preset", "sample", "--side-by-side", "2", "--backbones", "xception", "resnet50")
    assert sorted(title for title, *_ in jobs) == sorted(
        [
            *(f"stage {number} of 6" for number in (1, 2, 3, 6)),
            *(f"stage {stage} of 6, network {number} of 2" for stage in (4, 5) for number in (1, 2)),
            "report",
        ]
    )


def test_a_stage_that_fails_is_the_last(ran):
    code, jobs = ran("--preset", "sample", fails="training.py")
    assert code == 2
    assert jobs[-1][1] == "training.py"
    assert "vote.py" not in [script for _, script, _ in jobs]


def test_as_many_trainings_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    for gib, expected in ((100, 4), (7, 2), (1, 1), (0, 1)):
        monkeypatch.setattr(all_stages, "available_gib", lambda gib=gib: gib)
        assert all_stages.fitting(5) == expected
    assert all_stages.fitting(3) == 1


def test_manifests_of_another_network_do_not_count(tmp_path):
    config = replace(Config(), run_dir=tmp_path)
    folder = RunFolder(tmp_path).manifests
    folder.mkdir()
    for name in ("resnet50", "predictions_xception_test", "hashes", ".part.x.resnet50"):
        (folder / f"{name}.jsonl").touch()
    job = all_stages.Job("", "training.py", ["--backbone-name", "resnet50"])
    assert list(all_stages.stamps(job, config)) == ["resnet50.jsonl"]
