"""Training on several devices: parts of the CPU, which a backend makes when it starts."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pandas as pd
import pytest

from pipeline.devices import train_on
from tests.conftest import REPOSITORY
from utils.errors import InputError

needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
# Compilation is nearly all of the time: without optimisation, and each program once, it takes half.
AS_FOUR = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def test_a_backend_that_trains_on_one_device_says_so(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    assert train_on(0) == train_on(1) == 1
    with pytest.raises(InputError, match="devices = 2, but tensorflow trains on one: set KERAS_BACKEND=jax"):
        train_on(2)


@needs_jax
def test_training_with_jax_on_several_devices_and_with_a_moving_average(tmp_path):
    """The tests of several_devices.py; and one of test_batches.py, for which Keras has code of its own under JAX."""
    tests = ["tests/several_devices.py", "tests/test_batches.py::test_a_moving_average_is_what_is_validated_and_left"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=REPOSITORY,
        env=environment | AS_FOUR | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_classifier_is_trained_with_pytorch(stage, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    options = ("--backbone-name", "resnet50", "--backbones", "resnet50")
    for script, more in (("training.py", ["--overwrite"]), ("cls_predict.py", [])):
        result = stage(script, run, *options, *more, KERAS_BACKEND="torch")
        assert result.returncode == 0, result.stderr
    table = pd.read_csv(run / "predictions/resnet50_test.csv", index_col="image_id")
    np.testing.assert_allclose(table.sum(axis=1), 1)


@needs_jax
def test_a_stage_names_its_devices(stage, tmp_path):
    flags = AS_FOUR | {"XLA_FLAGS": AS_FOUR["XLA_FLAGS"].replace("count=4", "count=2")}
    result = stage("seg_train.py", tmp_path, "--unet-epochs", 1, "--unet-blocks", 1, **flags)
    assert result.returncode == 0, result.stderr
    assert "on 2 cpus, float32" in result.stdout
    assert (tmp_path / "unet" / "unet.keras").exists()
