"""Stages that are killed, repeated, changed, or run twice at a time."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest

import seg_train
from config import PRESETS
from data.batches import Batches
from data.images import read_grey, read_image, read_square, read_square_mask, write_image
from data.official import OfficialFolders
from pipeline.fitting import Plateau, fit
from tests.conftest import BUDGET, REPOSITORY
from utils.errors import InputError
from utils.files import lock


@pytest.fixture(scope="module")
def command(tiny_sample):
    """Function that gives the command line of a stage with the tests' budget."""

    def words(script, run_dir, *options):
        options = [*BUDGET, "--unet-epochs", 4, "--data-dir", tiny_sample, "--run-dir", run_dir, *options]
        return [sys.executable, script, *map(str, options)]

    return words


@pytest.fixture(scope="module")
def run(run_script):
    """Function that runs such a command to its end, as `stop_when` does but for the end."""
    return lambda words: run_script(*words[1:], eager=False)


# Runs a script that signals itself after some calls of a function have ended: so the moment depends on no clock.
SIGNAL_ITSELF = """
import importlib, itertools, os, runpy, sys, time

module, owner, name, after, how = sys.argv[1:6]
holder = importlib.import_module(module)
holder = getattr(holder, owner) if owner else holder
call, counter = getattr(holder, name), itertools.count(1)

def counted(*args, **options):
    result = call(*args, **options)
    if next(counter) == int(after):
        os.kill(os.getpid(), int(how))
        time.sleep(60)  # in a worker thread: the signal is the main thread's
    return result

setattr(holder, name, counted)
sys.argv = sys.argv[6:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def stop_after(words, function, count, how):
    """Run a command that is sent a signal once a function was called so often; (exit code, standard error).

    Args:
        words: the command line.
        function: its module, the class in it or "", and its name.
        count: calls.
        how: the signal.
    """
    python, *script = words
    command = [python, "-c", SIGNAL_ITSELF, *function, str(count), str(int(how)), *script]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    return result.returncode, result.stderr


@pytest.fixture(scope="module")
def unbroken(command, run, tmp_path_factory):
    """Run folder with a U-Net and masks made without interruption; read only."""
    folder = tmp_path_factory.mktemp("unbroken")
    for script in ("seg_train.py", "seg_predict.py"):
        result = run(command(script, folder))
        assert result.returncode == 0, result.stderr
    return folder


def test_a_killed_training_goes_on_and_ends_like_an_unbroken_one(command, run, unbroken, tmp_path):
    words = command("seg_train.py", tmp_path)
    for epochs, how in [(1, signal.SIGKILL), (2, signal.SIGINT)]:
        code, errors = stop_after(words, ("pipeline.fitting", "Checkpoints", "on_epoch_end"), 1, how)
        assert code == (130 if how == signal.SIGINT else -signal.SIGKILL), errors
        if how == signal.SIGINT:
            assert errors.strip().endswith("run the same command again to go on")
        assert len(pd.read_csv(tmp_path / "unet" / "checkpoints" / "history.csv")) == epochs
        assert not (tmp_path / "unet" / "unet.keras").exists()
    result = run(words)
    assert result.returncode == 0, result.stderr
    assert "going on after epoch 2" in result.stdout
    ours, theirs = (pd.read_csv(folder / "unet" / "history.csv") for folder in (tmp_path, unbroken))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-2)
    ours, theirs = (keras.saving.load_model(folder / "unet" / "unet.keras") for folder in (tmp_path, unbroken))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        # A step is 0.02 long. Where a gradient is next to nothing, rounding may decide on its direction.
        assert np.abs(a - b).mean() < 2e-3
    files = [{path.relative_to(folder) for path in (folder / "unet").rglob("*")} for folder in (tmp_path, unbroken)]
    assert files[0] == files[1]


def test_copies_for_training_equal_the_originals_and_are_made_once(tiny_sample, tmp_path, capsys):
    data_dir = shutil.copytree(tiny_sample, tmp_path / "data")
    config = replace(PRESETS["sample"], run_dir=tmp_path / "run", unet_image_size=32)
    images = OfficialFolders(data_dir).images("training")
    masks = OfficialFolders(data_dir).masks("training", images)

    def make():
        return seg_train.resized_cache(config, "training", images, masks)

    image_copies, mask_copies = make()
    for originals, files, reduced, read in [
        (images, image_copies, read_square, read_image),
        (masks, mask_copies, read_square_mask, read_grey),
    ]:
        assert len(files) == 16
        for original, file in zip(originals.values(), files, strict=True):
            np.testing.assert_array_equal(read(file), reduced(original, 32))
    times = {path: path.stat().st_mtime_ns for path in [*image_copies, *mask_copies]}

    mask_copies[3].unlink()
    assert make() == (image_copies, mask_copies)
    assert "1 files are missing" in capsys.readouterr().out
    assert {path for path in times if path.stat().st_mtime_ns != times[path]} == {mask_copies[3]}
    make()
    assert "nothing changed" in capsys.readouterr().out

    changed = images["ISIC_0000005"]
    write_image(changed, 255 - read_image(changed))
    make()
    assert "training images changed" in capsys.readouterr().out
    np.testing.assert_array_equal(read_image(image_copies[5]), read_square(changed, 32))


def test_a_training_leaves_its_copies_for_the_next_one(unbroken):
    for split, images in (("training", 16), ("validation", 8)):
        assert len(list((unbroken / "unet" / "copies" / split).glob("*.png"))) == 2 * images


def test_a_killed_prediction_keeps_its_masks_and_makes_the_rest(command, run, unbroken, tmp_path):
    shutil.copytree(unbroken / "unet", tmp_path / "unet")
    words = command("seg_predict.py", tmp_path, "--unet-batch-size", 1)
    masks = tmp_path / "masks" / "training"
    stop_after(words, ("data.images", "", "write_image"), 3, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in masks.glob("ISIC_*.png")}
    assert 3 <= len(kept) < 16
    result = run(words)
    assert result.returncode == 0, result.stderr
    assert "masks_training: going on" in result.stdout
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    for path in unbroken.glob("masks/*/*.png"):
        assert_same_mask(path, tmp_path / path.relative_to(unbroken))
    assert not list(tmp_path.rglob(".part.*"))


def assert_same_mask(first, second):
    """The same but for pixels whose probability is rounded over the threshold: rounding depends on the batch."""
    masks = [read_grey(path).astype(int) for path in (first, second)]
    assert np.abs(masks[0] - masks[1]).mean() < 0.01 * 255, first


def test_what_is_made_is_not_made_again_until_something_changes(command, run, unbroken, tmp_path):
    run_dir = shutil.copytree(unbroken, tmp_path / "run")
    files = [*run_dir.glob("masks/*/*.png"), *run_dir.glob("results/segmentation_*.csv")]
    assert len(files) == 16 + 8 + 8 + 3
    times = {path: path.stat().st_mtime_ns for path in files}
    before = json.loads((run_dir / "results" / "segmentation.json").read_text())
    result = run(command("seg_predict.py", run_dir))
    assert "masks_test: nothing changed" in result.stdout
    assert "segmentation_test: nothing changed" in result.stdout
    assert times == {path: path.stat().st_mtime_ns for path in files}
    assert json.loads((run_dir / "results" / "segmentation.json").read_text()) == before

    result = run(command("seg_predict.py", run_dir, "--mask-threshold", 0.3))
    assert "masks_test: mask_threshold changed" in result.stdout
    assert "segmentation_test: masks changed" in result.stdout
    assert all(times[path] != path.stat().st_mtime_ns for path in files)


def test_a_lost_file_is_made_again(command, run, unbroken, tmp_path):
    run_dir = shutil.copytree(unbroken, tmp_path / "run")
    lost = next(run_dir.glob("masks/test/*.png"))
    lost.unlink()
    assert "read 1 test images" in run(command("seg_predict.py", run_dir)).stdout
    assert_same_mask(unbroken / lost.relative_to(run_dir), lost)


def test_the_same_thing_is_never_made_twice_at_a_time(command, run, tmp_path):
    with lock(tmp_path / "manifests" / "unet.lock"):
        result = run(command("seg_train.py", tmp_path))
    assert result.returncode == 2
    assert f"another process is making unet in {tmp_path}: wait for its end" in result.stderr
    assert not (tmp_path / "unet").exists()


@pytest.mark.parametrize("content", [b"", b"PK", None])
@pytest.mark.parametrize("name", ["epoch_3.npz", "history.csv"])
def test_a_damaged_checkpoint_is_named(tmp_path, name, content):
    with pytest.raises(InterruptedError):
        noisy_task(30, tmp_path, 3)
    file = tmp_path / name
    file.unlink() if content is None else file.write_bytes(content)
    if (name, content) == ("history.csv", None):
        assert noisy_task(30, tmp_path)[0]["epoch"].iloc[0] == 1, "without it, the training starts again"
        return
    with pytest.raises(InputError, match=rf"{name} is missing or damaged .*: remove .* to start this training again"):
        noisy_task(30, tmp_path)


def noisy_task(epochs, folder, break_after=None):
    """Train a tiny network that reaches plateaus and early stopping; break off after an epoch, if told to.

    It is validated on the same images with other labels: what it learns makes validation worse, in every epoch.
    """
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 4, 4, 3), np.uint8)
    classes = rng.integers(0, 3, 16)
    labels, others = np.eye(3, dtype=np.float32)[classes], np.eye(3, dtype=np.float32)[(classes + 1) % 3]
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((4, 4, 3)), *layers])
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy")

    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == break_after:
                raise InterruptedError

    make = partial(Batches, batch_size=8)
    callbacks = [Plateau(factor=0.5, patience=2), Break()]
    training, validation = make(images, labels, shuffle=True), make(images, others)
    history = fit(model, training, validation, epochs, folder, patience=5, callbacks=callbacks)
    return history, model.get_weights()


@pytest.fixture(scope="module")
def noisy_history(tmp_path_factory):
    """History and weights of an unbroken training of that kind."""
    return noisy_task(30, tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize("break_after", [1, 3, 4])
def test_learning_rate_and_early_stopping_go_on_too(noisy_history, tmp_path, break_after, capsys):
    expected, weights = noisy_history
    assert len(expected) < 30, "early stopping never came"
    assert expected["learning_rate"].nunique() > 1, "no plateau came"
    with pytest.raises(InterruptedError):
        noisy_task(30, tmp_path / "broken", break_after)
    history, after = noisy_task(30, tmp_path / "broken")
    assert f"going on after epoch {break_after}\n" in capsys.readouterr().out
    pd.testing.assert_frame_equal(history, expected, check_dtype=False, rtol=1e-4)
    for ours, theirs in zip(after, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_training_is_never_finished_in_another_precision(tmp_path):
    with pytest.raises(InterruptedError):
        noisy_task(30, tmp_path, 3)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with pytest.raises(InputError, match=r"began in float32.* go on in bfloat16: pass --mixed-precision float32"):
            noisy_task(30, tmp_path)
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(noisy_task(30, tmp_path)[0]) > 3


def test_a_training_killed_after_its_last_epoch_trains_no_further(tmp_path, capsys):
    expected, _ = noisy_task(30, tmp_path)
    capsys.readouterr()
    again, _ = noisy_task(30, tmp_path)
    pd.testing.assert_frame_equal(again, expected)
    said = capsys.readouterr().out
    assert f"going on after epoch {len(expected)}\n" in said
    assert "/30, " not in said


def test_a_checkpoint_on_a_full_disk_ends_in_one_sentence(command, run, tmp_path):
    resource = pytest.importorskip("resource")  # a limit on a file's size fails as a full disk does
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (200_000, 200_000))
    words = command("seg_train.py", tmp_path, "--unet-filters", 16)
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, preexec_fn=limit)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    message = result.stderr.strip().splitlines()[-1]
    assert "epoch_1.npz" in message
    assert message.endswith("make room or choose another folder")
    assert not list((tmp_path / "unet").rglob("*.npz"))
