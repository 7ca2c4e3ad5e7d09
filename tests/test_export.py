"""Networks exported to ONNX give the probabilities of Keras on real images, preprocessing included."""

import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from data.images import read_square
from models import export
from models.compact import load
from models.unet import unet
from tests.conftest import REPOSITORY
from utils.errors import InputError

TRAINED = REPOSITORY / "models" / "trained"


def test_onnx_runtime_gives_the_same_probabilities_on_real_images(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    for package in ("torch", "onnx", "onnxscript"):
        pytest.importorskip(package)
    for place in ("backbones/xception/model.keras", "vote/vote.keras"):
        (tmp_path / place).parent.mkdir(parents=True)
        shutil.copyfile(TRAINED / place, tmp_path / place)
    (tmp_path / "unet").mkdir()
    unet(64, 3, 4, batch_norm=True).save(tmp_path / "unet" / "unet.keras")
    command = [sys.executable, "-m", "models.export", tmp_path, "--format", "onnx"]
    subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"KERAS_BACKEND": "torch"}, check=True)
    examples = sorted((REPOSITORY / "data" / "examples").glob("*.jpg"))[:4]
    networks = export.network_files(tmp_path)
    assert len(networks) == 3
    for path in networks:
        network = load(path)
        shape = network.input_shape[1:]
        if len(shape) == 3:
            values = np.stack([read_square(example, shape[0]) for example in examples]).astype(np.float32)
        else:
            values = np.random.default_rng(0).dirichlet(np.ones(shape[0]), (4, shape[1])).swapaxes(1, 2)
            values = values.astype(np.float32)
        exported = (tmp_path / "onnx" / path.relative_to(tmp_path)).with_suffix(".onnx")
        session = runtime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: values})
        np.testing.assert_allclose(found, network.predict(values, verbose=0), atol=1e-4)


def test_the_networks_of_a_run_are_found_without_those_of_folds(tmp_path):
    names = ["unet/unet.keras", "unet/checkpoints/0/x.keras", "unet/.part.unet.keras"]
    names += ["backbones/xception/model.keras", "backbones/xception/fold_1/model.keras", "vote/vote.keras"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("no network")
    found = export.network_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [names[3], names[0], names[5]]
    assert export.network_files(found[0]) == found[:1]
    with pytest.raises(InputError, match=r"holds no \.keras file"):
        export.network_files(tmp_path / "nowhere")


def test_a_damaged_network_another_backend_and_a_missing_package_are_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "model.keras").write_text("no network")
    with pytest.raises(InputError, match=r"model\.keras is damaged"):
        export.export(tmp_path / "model.keras", tmp_path / "model.onnx")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(InputError, match="put KERAS_BACKEND=torch before the command"):
        export.main(export.Settings(tmp_path))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="onnx is not installed: run `pip install"):
        export.main(export.Settings(tmp_path))


def test_a_missing_backend_is_one_sentence(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')\n")
    environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "models.export", TRAINED]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: torch is not installed: install it, or set KERAS_BACKEND to another backend\n"
