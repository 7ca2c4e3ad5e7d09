"""Networks exported to ONNX give the probabilities of Keras on real images, preprocessing included."""

import keras
import numpy as np
import pytest

from data.images import read_square
from models import export
from models.backbones import classifier
from models.unet import unet, unet_with_encoder
from models.vote import vote_network
from tests.conftest import REPOSITORY
from utils.errors import InputError

EXAMPLES = sorted((REPOSITORY / "data" / "examples").glob("*.jpg"))


def test_onnx_runtime_gives_the_same_probabilities_on_real_images(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    networks = {
        "unet": (unet(32, 3, 4), 32),
        "resnet50": (classifier("resnet50", 64, weights="none"), 64),
    }
    for name, (network, _) in networks.items():
        network.save(tmp_path / f"{name}.keras")
    unet_with_encoder("resnet50", 64, 4, weights="none").save(tmp_path / "encoder.keras")
    keras.config.set_dtype_policy("float32")
    vote_network(2).save(tmp_path / "vote.keras")
    with pytest.raises(InputError, match=r"encoder\.keras cannot be exported"):
        export.main(export.Settings(tmp_path))
    assert not (tmp_path / "onnx" / "encoder.onnx").exists()
    for name, (_, side) in networks.items():
        images = np.stack([read_square(path, side) for path in EXAMPLES[:4]]).astype(np.float32)
        export.compact(tmp_path / f"{name}.keras", tmp_path / "float32.keras", half=False)
        expected = keras.saving.load_model(tmp_path / "float32.keras", compile=False).predict(images, verbose=0)
        session = runtime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: images})
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (tmp_path / "onnx" / "vote.onnx").exists()


def test_the_networks_of_a_run_are_found_without_those_of_folds(tmp_path):
    names = ["unet/unet.keras", "unet/checkpoints/x.keras", "backbones/xception/model.keras"]
    for name in [*names, "backbones/xception/fold_1/model.keras"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("no network")
    found = export.network_files(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [names[2], names[0]]
    assert export.network_files(found[0]) == found[:1]
    with pytest.raises(InputError, match=r"holds no \.keras file"):
        export.network_files(tmp_path / "nowhere")


def test_a_damaged_network_and_missing_packages_are_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "model.keras").write_text("no network")
    monkeypatch.setattr(export, "NEEDED", {keras.backend.backend(): ()})
    with pytest.raises(InputError, match=r"model\.keras is damaged"):
        export.export(tmp_path / "model.keras", tmp_path / "model.onnx")
    monkeypatch.setattr(export, "NEEDED", {keras.backend.backend(): ("no_such_package",)})
    with pytest.raises(InputError, match=r"needs no_such_package: run `pip install"):
        export.export(tmp_path / "model.keras", tmp_path / "model.onnx")
    monkeypatch.setattr(export, "NEEDED", {})
    with pytest.raises(InputError, match="does not export to ONNX"):
        export.export(tmp_path / "model.keras", tmp_path / "model.onnx")
