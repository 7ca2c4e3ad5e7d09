"""Manifests: what is kept, made again, refused and never touched."""

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import islice

import pytest

from config import PRESETS, Config
from pipeline.manifest import Manifest
from pipeline.manifest_files import digest_of
from pipeline.settings import PER_CALL_SETTINGS, SETTINGS_BY_OUTPUT, affects, read_settings, write_settings
from pipeline.upstream import RunRecords
from tests.conftest import REPOSITORY
from utils.errors import InputError
from utils.files import atomic_write, lock


@pytest.fixture
def config(tmp_path):
    """Settings of an empty run folder and data folder."""
    (tmp_path / "data").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "data" / name).write_text(f"image {name}")
    return replace(PRESETS["sample"], run_dir=tmp_path / "run", data_dir=tmp_path / "data")


def stages(config):
    """The things of a run in miniature, upstream first: dictionary from name to a `Manifest`."""
    run, data = config.run_dir, config.data_dir
    images = [data / "a.jpg", data / "b.jpg"]
    masks, crops = ([run / kind / "test" / f"{i}.png" for i in "ab"] for kind in ("masks", "crops"))
    unet, network = run / "unet" / "unet.keras", run / "backbones" / "xception" / "model.keras"
    config = replace(config, backbone_name="xception")
    table = run / "predictions" / "xception_test.csv"
    script = "training.py --backbone-name xception"
    return {
        "unet": Manifest(
            config, "unet", "unet", "seg_train.py", {"images": images}, [unet], checkpoints=unet.parent / "checkpoints"
        ),
        "masks": Manifest(
            config, "masks_test", "masks", "seg_predict.py", {"U-Net": [unet], "images": images}, masks, one_by_one=True
        ),
        "crops": Manifest(
            config, "crops_test", "crops", "resize.py", {"images": images, "masks": masks}, crops, one_by_one=True
        ),
        "network": Manifest(
            config,
            "xception",
            "classifier",
            script,
            {"test crops": crops},
            [network.with_name("history.csv"), network],
            checkpoints=network.parent / "checkpoints",
        ),
        "table": Manifest(
            config,
            "predictions_xception_test",
            "predictions",
            "cls_predict.py --backbone-name xception",
            {"network": [network], "crops": crops},
            [table],
        ),
    }


def make(made, content="made"):
    """Make something unless it is up to date; whether it was made."""
    if made.up_to_date():
        return False
    made.begin()
    for path in made.outputs:
        if not made.one_by_one or not path.exists():
            with atomic_write(path) as part:
                part.write_text(f"{content} {path.name}")
    made.finish()
    return True


@pytest.fixture
def run(config):
    """A finished run in miniature: its settings."""
    for made in stages(config).values():
        assert make(made)
    return config


@contextmanager
def edited_manifest(run_dir, name):
    """Give a manifest as one dictionary, its files under "outputs", and write it back."""
    path = run_dir / "manifests" / f"{name}.jsonl"
    head, *files = map(json.loads, path.read_text().splitlines())
    record = head | {"outputs": dict(files)}
    yield record
    lines = [{key: value for key, value in record.items() if key != "outputs"}, *record["outputs"].items()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def everything(folder):
    """What all files of a folder hold, but for the locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder): path.read_bytes() for path in files}


# ---- what is made again ----------------------------------------------------------------------------------------------


def test_masks_that_two_images_exchange_are_a_change(config):
    def crops(masks):
        files = {image_id: config.data_dir / name for image_id, name in masks.items()}
        return Manifest(config, "crops_test", "crops", "resize.py", {"masks": files}, [config.run_dir / "crop.png"])

    for name in ("m1.png", "m2.png", "a_segmentation.png", "b.png"):
        (config.data_dir / name).write_text(name)
    assert make(crops({"a": "m1.png", "b": "m2.png"}))
    with edited_manifest(config.run_dir, "crops_test") as record:  # as it was before it knew the ids
        files = [config.data_dir / name for name in ("m1.png", "m2.png")]
        record["inputs"]["masks"] = digest_of(RunRecords(config).stamps(files))
        del record["paired"]
    assert not make(crops({"a": "m1.png", "b": "m2.png"}))
    assert make(crops({"a": "m2.png", "b": "m1.png", "c": "b.png"}))
    assert make(crops({"a": "m1.png", "b": "m2.png"}))
    assert not make(crops({"b": "m2.png", "a": "m1.png"}))
    assert make(crops({"a": "m2.png", "b": "m1.png"}))
    assert make(crops({"a": "a_segmentation.png", "b": "b.png"}))
    assert make(crops({"a": "b.png", "b": "a_segmentation.png"}))


def test_a_copy_is_up_to_date_and_so_are_touched_files(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run.run_dir, copy, copy_function=shutil.copyfile)  # new times, same bytes
    data = shutil.copytree(run.data_dir, tmp_path / "moved", copy_function=shutil.copyfile)
    assert not any(make(made) for made in stages(replace(run, run_dir=copy, data_dir=data)).values())


def test_nothing_is_read_twice(run, monkeypatch):
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a file was read again"))
    assert not any(make(made) for made in stages(run).values())


def test_cheap_files_are_made_again(run, capsys):
    changed = replace(run, mask_threshold=0.2)
    assert make(stages(changed)["masks"], "other")
    assert "mask_threshold changed, making it again" in capsys.readouterr().out
    assert (run.run_dir / "masks/test/a.png").read_text() == "other a.png"
    assert make(stages(changed)["crops"])
    assert "masks changed, making it again" in capsys.readouterr().out


def test_a_lost_file_alone_is_made_again(run):
    (run.run_dir / "crops/test/a.png").unlink()
    kept = (run.run_dir / "crops/test/b.png").stat().st_mtime_ns
    assert make(stages(run)["crops"])
    assert kept == (run.run_dir / "crops/test/b.png").stat().st_mtime_ns
    assert not make(stages(run)["network"]), "the same bytes are no change"


def test_what_a_power_cut_emptied_is_not_taken_for_finished(config):
    made = stages(config)
    make(made["unet"])
    assert not made["masks"].up_to_date()
    made["masks"].begin()
    (config.run_dir / "masks/test").mkdir(parents=True)
    (config.run_dir / "masks/test/a.png").touch()
    made["masks"].lock.release()
    assert make(stages(config)["masks"])
    assert (config.run_dir / "masks/test/a.png").read_text() == "made a.png"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"from": {}, "finished": {}}', '{"outputs": {"a": 3}}', "\xff"])
def test_a_damaged_record_makes_cheap_files_again_and_keeps_networks(run, content, capsys):
    for name in ("crops_test", "xception"):
        (run.run_dir / "manifests" / f"{name}.jsonl").write_text(content, encoding="latin-1")
    assert make(stages(run)["crops"])
    assert "no record of how the existing files were made: making them again" in capsys.readouterr().out
    with pytest.raises(
        InputError,
        match=r"there is no record of how .*model.keras was made: run `python .* --overwrite",
    ):
        make(stages(run)["network"])


@pytest.mark.parametrize("content", ["{", "[]", '["a", 3]', '["a", {}]', "1"])
def test_damaged_lines_of_a_manifest_make_cheap_files_again_and_keep_networks(run, content):
    for name in ("unet", "crops_test", "xception"):
        path = run.run_dir / "manifests" / f"{name}.jsonl"
        path.write_text(path.read_text() + content)
    with pytest.raises(InputError, match=r"unet.keras is not finished|unet.keras is missing or was changed"):
        make(stages(run)["unet"])
    with pytest.raises(InputError, match=r"unet.keras is not finished"):
        make(stages(run)["crops"])


# ---- memory and disk -------------------------------------------------------------------------------------------------


def test_records_take_little_disk_and_memory(config, monkeypatch):
    count = 300
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    images, truths = (
        [config.data_dir / f"ISIC-2017_Training_{part}/ISIC_{k:07}{end}" for k in range(count)]
        for part, end in (("Data", ".jpg"), ("Part1_GroundTruth", "_segmentation.png"))
    )
    for path in (*images, *truths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    run = config.run_dir
    copies, masks, crops = (
        [run / folder / "training" / f"{path.stem}.png" for path in paths]
        for folder, paths in (("unet/copies", images + truths), ("masks", truths), ("crops", images))
    )

    def outputs():
        options = {"one_by_one": True}
        yield Manifest(config, "copies", "copies", "x.py", {"images": images, "masks": truths}, copies, **options)
        yield Manifest(config, "masks", "masks", "x.py", {"images": images, "truths": truths}, masks, **options)
        yield Manifest(config, "crops", "crops", "x.py", {"images": images, "masks": masks}, crops, **options)
        for name in "abcde":
            network = [run / "backbones" / name / "model.keras"]
            yield Manifest(config, name, "classifier", "x.py", {"crops": crops}, network, checkpoints=run / "none")
            table = [run / "predictions" / f"{name}.csv"]
            yield Manifest(config, f"predictions_{name}", "predictions", "x.py", {"n": network, "crops": crops}, table)

    for made in outputs():
        make(made)
    constant = 250_000  # whatever the number of images
    written = sum(path.stat().st_size for path in (run / "manifests").iterdir())
    assert written < 1000 * count + constant
    for made in islice(outputs(), 5):
        tracemalloc.start()
        assert made.up_to_date()
        assert tracemalloc.get_traced_memory()[1] < 1000 * count + constant, made.name
        tracemalloc.stop()


# ---- what took hours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda run: replace(run, learning_rate=0.5), "made with learning_rate = 0.001, not 0.5"),
        (
            lambda run: (run.run_dir / "crops/test/a.png").write_text("other") and None,
            "crops/test/a.png was changed after",
        ),
        (
            lambda run: make(stages(replace(run, crop_margin_px=9))["crops"], "x") and None,
            "made with other test crops, crop_m",
        ),
        (
            lambda run: (run.run_dir / "backbones/xception/history.csv").unlink(),
            "history.csv is missing or was changed",
        ),
    ],
)
def test_a_finished_network_is_never_made_again_unasked(run, spoil, named):
    changed = spoil(run) or run
    before = everything(run.run_dir)
    with pytest.raises(InputError, match=named) as refused:
        make(stages(changed)["network"])
    if "a.png" not in named:
        assert "--overwrite" in str(refused.value)
        assert "another --run-dir" in str(refused.value)
    assert everything(run.run_dir) == before


def test_overwrite_makes_it_anew_and_keeps_the_old_until_then(run):
    made = stages(replace(run, learning_rate=0.5, overwrite=True))["network"]
    network = run.run_dir / "backbones/xception/model.keras"
    assert not made.up_to_date()
    made.begin()
    assert network.read_text() == "made model.keras"
    made.lock.release()
    with pytest.raises(InputError, match=r"model.keras is not finished, or is being made: run `python training.py"):
        make(stages(run)["table"])
    assert make(stages(replace(run, learning_rate=0.5))["network"], "new"), "an unfinished training goes on"
    assert network.read_text() == "new model.keras"


def test_an_unfinished_training_is_not_thrown_away_either(config):
    checkpoint = config.run_dir / "unet/checkpoints/epoch_1.npz"
    made = stages(config)["unet"]
    assert not made.up_to_date()
    made.begin()
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("hours")
    made.lock.release()
    with pytest.raises(
        InputError,
        match=r"unet/checkpoints was made with unet_epochs = 12, not 13: run `python .* --overwrite",
    ):
        make(stages(replace(config, unet_epochs=13))["unet"])
    assert checkpoint.read_text() == "hours"
    assert make(stages(replace(config, unet_epochs=13, overwrite=True))["unet"])
    assert not checkpoint.exists()


def test_of_a_copied_network_in_place_of_a_trained_one_only_the_origin_is_named(run):
    made = stages(run)["unet"]
    made.kind, made.script, made.settings = "copied", "seg_predict.py --unet 'my runs'", {}
    with pytest.raises(InputError, match=r"was made with seg_train.py, not seg_predict.py --unet 'my runs': run"):
        make(made)


def test_automatic_precision_fits_any_and_others_must_be_the_same(run):
    assert not make(stages(replace(run, mixed_precision="float16"))["network"]), "the settings said auto"
    assert make(stages(replace(run, mixed_precision="bfloat16", overwrite=True))["network"])
    assert not make(stages(run)["network"])
    with pytest.raises(InputError, match="mixed_precision = bfloat16, not float16"):
        make(stages(replace(run, mixed_precision="float16"))["network"])


def test_a_setting_that_an_older_version_did_not_have_was_as_published(run):
    with edited_manifest(run.run_dir, "xception") as record:
        assert record["settings"].pop("weight_decay") == 0
    assert not make(stages(run)["network"])
    with pytest.raises(InputError, match=r"weight_decay = 0.0, not 0.1"):
        make(stages(replace(run, weight_decay=0.1))["network"])


# ---- stale files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "again", "refusal"),
    [
        (
            "network",
            {"overwrite": True},
            r"xception_test.csv was made from an older backbones/xception/model.keras: run",
        ),
        (
            "crops",
            {"crop_margin_px": 9},
            r"model.keras was made from older files in crops/test, with .*_px = 8, not 9: .*--overwrite`, or make c",
        ),
        (
            "masks",
            {"mask_threshold": 0.2},
            r"crops/test/a.png was made from older files in masks/test, with .*: run `python resize",
        ),
        ("unet", {"overwrite": True}, r"masks/test/a.png was made from an older unet/unet.keras: .*seg_predict.py"),
    ],
)
def test_what_was_made_from_something_else_is_refused(run, name, again, refusal):
    table = [run.run_dir / "predictions/xception_test.csv"]
    RunRecords(run).check(table)
    make(stages(replace(run, **again))[name], "other")
    with pytest.raises(InputError, match=refusal):
        RunRecords(run).check(table)


@pytest.mark.parametrize("network", ["backbones/xception/model.keras", "unet/unet.keras"])
def test_a_network_that_was_swapped_after_it_was_used_is_refused(run, network):
    (run.run_dir / network).write_text("another network")
    with pytest.raises(InputError, match=rf"{network} was changed after it was made: run `python .* --overwrite`"):
        RunRecords(run).check([run.run_dir / "predictions/xception_test.csv"])


def test_former_settings_make_all_as_it_was(run):
    make(stages(replace(run, crop_margin_px=9))["crops"], "other")
    make(stages(run)["crops"])
    assert not make(stages(run)["table"])


def test_a_file_of_the_data_set_is_not_taken_for_an_output_with_the_same_name(run):
    mask = run.data_dir / "masks/test/a.png"
    mask.parent.mkdir(parents=True)
    mask.write_text("a true mask")
    assert RunRecords(run).check([mask]) == []
    assert RunRecords(run).check([run.run_dir / "masks/test/a.png"]) == ["masks_test"]


def test_files_without_a_record_and_files_that_are_gone_are_no_contradiction(run):
    shutil.rmtree(run.run_dir / "crops")
    (run.run_dir / "manifests/masks_test.jsonl").unlink()
    RunRecords(run).check([run.run_dir / "predictions/xception_test.csv"])


def test_splits_made_with_different_settings_are_refused(run):
    crops = run.run_dir / "crops/validation/c.png"
    other = replace(run, crop_margin_px=9)
    make(Manifest(other, "crops_validation", "crops", "resize.py", {}, [crops]))
    with pytest.raises(InputError, match=r"crops_test .* 8.*: run `python resize.py` for both with the same settings"):
        RunRecords(run).check([crops, run.run_dir / "crops/test/a.png"])


def test_settings_that_were_others_are_refused_where_they_must_agree(run):
    table = [run.run_dir / "predictions/xception_test.csv"]
    RunRecords(run).check(table, must_match=["crop_margin_px"])
    with pytest.raises(InputError, match=r"crop_margin_px = 9, but crops_test of .* was made with 8"):
        RunRecords(replace(run, crop_margin_px=9)).check(table, must_match=["crop_margin_px"])


def test_what_changed_while_it_was_read_is_noticed(run):
    made = stages(replace(run, test_time_augmentation=True))["table"]
    assert not made.up_to_date()
    made.begin()
    (run.run_dir / "crops/test/a.png").write_text("meanwhile")
    with pytest.raises(InputError, match=r"crops in .*test changed while predictions_xception_test was made from"):
        made.finish()
    made.lock.release()


# ---- files that are none of ours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{}/precious.txt", "../precious.txt", "crops/test/holiday.png", "unet/unet.keras"])
def test_no_file_is_removed_because_a_manifest_names_it(run, tmp_path, name):
    precious = run.run_dir / name.format(tmp_path)
    precious.write_text("precious")
    with edited_manifest(run.run_dir, "crops_test") as record:
        record["file"] = name.format(tmp_path)
        record["outputs"][name.format(tmp_path)] = f"8 {precious.stat().st_mtime_ns} 0"
    assert make(
        stages(replace(run, crop_margin_px=9, skip_bad_images=True))["crops"] if "unet" not in name else foreign(run)
    )
    assert precious.read_text() == "precious"


def foreign(run):
    """Crops that need no U-Net, made again."""
    return Manifest(run, "crops_test", "crops", "resize.py", {}, [run.run_dir / "crops/test/a.png"], one_by_one=True)


def test_what_is_obsolete_goes(run):
    obsolete, table = (run.run_dir / "predictions" / name for name in ("vote_oof_test.csv", "vote_test.csv"))
    obsolete.write_text("of a vote with folds")
    assert make(Manifest(run, "vote", "vote", "vote.py", {}, [table], obsolete=[obsolete, table]))
    assert table.exists()
    assert not obsolete.exists()


def test_no_link_can_wait_for_what_is_written(tmp_path):
    precious, target = tmp_path / "precious.txt", tmp_path / "run" / "table.csv"
    precious.write_text("precious")
    target.parent.mkdir()
    (target.parent / ".part.table.csv").symlink_to(precious)
    names = set()
    for _ in range(3):
        with atomic_write(target) as part:
            names.add(part.name)
            part.write_text("new")
    assert precious.read_text() == "precious"
    assert target.read_text() == "new"
    assert len(names) == 3


def test_a_written_file_may_be_read_by_whom_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "table.csv") as part:
            part.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o640


def test_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda _: order.append("flushed"))
    replaced = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("named"), replaced(*paths)))
    with atomic_write(tmp_path / "model.keras") as part:
        part.write_text("x")
    assert order == ["flushed", "named"]


def test_what_a_killed_run_left_is_removed_and_that_of_others_is_not(run):
    ours, theirs = (run.run_dir / "predictions" / f".part.0a1b.{name}.csv" for name in ("xception_test", "other"))
    ours.touch(), theirs.touch()
    (run.run_dir / "predictions/xception_test.csv").unlink()
    assert make(stages(run)["table"])
    assert not ours.exists()
    assert theirs.exists()


# ---- locks -----------------------------------------------------------------------------------------------------------


def test_the_same_thing_is_made_once_at_a_time_and_others_beside_it(run):
    changed = replace(run, mask_threshold=0.2, crop_margin_px=9)
    first, again, other = stages(changed)["masks"], stages(changed)["masks"], stages(changed)["crops"]
    assert not first.up_to_date()
    with pytest.raises(InputError, match="another process is making masks_test in"):
        again.up_to_date()
    assert not other.up_to_date()
    first.begin()
    first.finish()
    assert again.up_to_date() is False  # its files were not made in this test
    for made in (again, other):
        made.lock.release()


def test_a_link_is_no_lock(tmp_path):
    (tmp_path / "x.lock").symlink_to(tmp_path / "precious.txt")
    with pytest.raises(InputError, match=r"x\.lock is a link"):
        lock(tmp_path / "x.lock")
    assert not (tmp_path / "precious.txt").exists()


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "manifests" / "x.lock"
    code = f"from pathlib import Path; from utils.files import lock; import os; lock(Path({str(path)!r})); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 9
    with lock(path):
        assert lock(path.with_name("y.lock")) is not None


@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    import errno
    import fcntl

    def flock(*_):
        raise OSError(getattr(errno, number), "none here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match=f"{tmp_path}.* is on a file system without locks .*another disk"):
        lock(tmp_path / "x.lock")


# ---- settings --------------------------------------------------------------------------------------------------------


def test_every_setting_is_in_a_row_and_every_entry_is_a_setting():
    names = [field.name for field in fields(Config)]
    for name in names:
        assert any(affects(name, kind) for kind in SETTINGS_BY_OUTPUT), f"put {name} into SETTINGS_BY_OUTPUT"
    for kind, patterns in SETTINGS_BY_OUTPUT.items():
        for pattern in patterns:
            row = {kind: (pattern,)}
            assert any(affects(name, kind, row) for name in names), f"{pattern} of {kind} is no setting"
    others = set(SETTINGS_BY_OUTPUT) - {"nothing"}
    assert not any(affects(name, "nothing") and affects(name, other) for name in names for other in others)
    assert set(PER_CALL_SETTINGS) <= set(names)


def test_settings_come_back_as_they_were(tmp_path):
    config = replace(PRESETS["isic2017_256"], learning_rate=1.0, splits=("test",), extra_data_dir=tmp_path)
    write_settings(config, tmp_path / "settings.json")
    assert read_settings(tmp_path / "settings.json") == config


def test_what_an_older_version_did_not_keep_is_as_published_and_the_run_folder_is_that_of_the_file(tmp_path):
    (tmp_path / "config.json").write_text('{"preset": "sample", "epochs": 6}')
    config = read_settings(tmp_path / "config.json")
    assert config == replace(PRESETS["isic2017"], preset="sample", epochs=6, run_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "holds no settings"),
        ("[1]", "holds no settings"),
        ('{"epoch": 3}', "names epoch, which is no setting"),
        ('{"epochs": "3"}', "holds epochs = '3'"),
        ('{"epochs": 3.5}', "holds epochs = 3.5"),
        ('{"epochs": null}', "holds epochs = None"),
        ('{"crop_square": 1}', "holds crop_square = 1"),
        ('{"splits": "test"}', "holds splits = 'test'"),
        ('{"learning_rate": true}', "holds learning_rate = True"),
    ],
)
def test_a_damaged_file_of_settings_is_named(tmp_path, content, named):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=named):
        read_settings(path)
    with pytest.raises(InputError, match=r"absent.json is missing"):
        read_settings(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"is a folder: --config takes a config.json"):
        read_settings(tmp_path)
