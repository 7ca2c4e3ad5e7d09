"""The five classifiers, each built once at its smallest image, from random weights."""

import errno
import hashlib
import re
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from models.backbones import (
    BACKBONES,
    WEIGHT_FILE,
    Backbone,
    classifier,
    load_backbone,
    stage_ends,
    with_squeeze_excitation,
)
from models.fused_batch_norm import fused_call
from models.squeeze_excitation import SqueezeExcitation
from utils.errors import InputError
from utils.files import lock

SMALLEST = {"resnet50": 32, "densenet169": 32, "inception_v3": 75, "inception_resnet_v2": 75, "xception": 71}
STAGES = {  # the last feature map of each resolution: its layer and its shape at the smallest image
    "resnet50": {
        "conv1_relu": (16, 16, 64),
        "conv2_block3_out": (8, 8, 256),
        "conv3_block4_out": (4, 4, 512),
        "conv4_block6_out": (2, 2, 1024),
        "conv5_block3_out": (1, 1, 2048),
    },
    "densenet169": {
        "conv1_relu": (16, 16, 64),
        "pool2_conv": (8, 8, 128),
        "pool3_conv": (4, 4, 256),
        "pool4_conv": (2, 2, 640),
        "relu": (1, 1, 1664),
    },
    "inception_v3": {
        "activation_2": (35, 35, 64),
        "activation_4": (15, 15, 192),
        "mixed2": (7, 7, 288),
        "mixed7": (3, 3, 768),
        "mixed10": (1, 1, 2048),
    },
    "inception_resnet_v2": {
        "activation_2": (35, 35, 64),
        "activation_4": (15, 15, 192),
        "block35_10_ac": (7, 7, 320),
        "block17_20_ac": (3, 3, 1088),
        "conv_7b_ac": (1, 1, 1536),
    },
    "xception": {
        "block1_conv2_act": (33, 33, 64),
        "add": (17, 17, 128),
        "add_1": (9, 9, 256),
        "add_10": (5, 5, 728),
        "block14_sepconv2_act": (3, 3, 2048),
    },
}
REFERENCES = {
    "resnet50": (keras.applications.ResNet50, keras.applications.resnet50.preprocess_input),
    "xception": (keras.applications.Xception, keras.applications.xception.preprocess_input),
}


def crops(size):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)


def blocks(network):
    return [layer for layer in network.layers if isinstance(layer, SqueezeExcitation)]


def batch_norms(network):
    return [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]


def outputs(network, images):
    return keras.ops.convert_to_numpy(network(images, training=False))


def features_and_probabilities(network, images):
    """What the head sees and says; of random weights, the probabilities alone say little."""
    both = keras.Model(network.input, [network.get_layer("pool").output, network.output])
    return [keras.ops.convert_to_numpy(output) for output in both(images, training=False)]


def assert_equal_maps(maps, expected):
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def set_gates(network, bias):
    """Open the gates of every block to sigmoid(bias)."""
    for block in blocks(network):
        block.expand.bias.assign(np.full(block.expand.bias.shape, bias))


def move_variances(network):
    """Take the moving variances away from 1, so that losing them shows."""
    rng = np.random.default_rng(0)
    for layer in batch_norms(network):
        layer.moving_variance.assign(rng.uniform(0.6, 1.2, layer.moving_variance.shape))


# ---- all five --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SMALLEST)
def network(request):
    """A classifier of random weights."""
    keras.utils.clear_session()  # automatic layer names start anew
    network = classifier(request.param, SMALLEST[request.param], weights="none", batch_norm_momentum=0.9)
    move_variances(network)
    yield network
    keras.utils.clear_session()


def test_a_block_follows_the_last_map_of_each_resolution(network):
    assert {block.name: block.output.shape[1:] for block in blocks(network)} == {
        f"{name}_se": shape for name, shape in STAGES[network.name].items()
    }
    assert network.get_layer("pool").input is blocks(network)[-1].output


def test_head_is_the_published_one(network):
    assert [layer.name for layer in network.layers[-4:]] == ["pool", "hidden", "dropout", "diagnosis"]
    pool, hidden, dropout, diagnosis = network.layers[-4:]
    assert isinstance(pool, layers.GlobalAveragePooling2D)
    assert (hidden.units, hidden.activation) == (128, keras.activations.relu)
    assert dropout.rate == 0
    assert (diagnosis.units, diagnosis.activation) == (3, keras.activations.softmax)
    (penalty,) = network.losses
    kernel = keras.ops.convert_to_numpy(hidden.kernel)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(penalty), 1e-4 * np.abs(kernel).sum(), rtol=1e-3)


def test_momentum_reaches_every_batch_normalisation(network):
    assert len(batch_norms(network)) > 30
    if keras.backend.backend() == "tensorflow":
        assert all(layer.call.__func__ is fused_call for layer in batch_norms(network))
    assert {layer.momentum for layer in batch_norms(network)} == {0.9}


def test_input_is_one_tensor_and_not_a_list_of_one(network):
    assert isinstance(network.input, keras.KerasTensor)  # a list makes Keras warn about every call on an array


def test_saved_classifier_gives_the_same_outputs(network, tmp_path):
    path = tmp_path / "model.keras"
    network.save(path)
    loaded = keras.saving.load_model(path)
    path.unlink()  # up to 220 MB
    for weight, expected in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert {layer.momentum for layer in batch_norms(loaded)} == {0.9}
    images = crops(SMALLEST[network.name])
    features, probabilities = features_and_probabilities(loaded, images)
    expected_features, expected = features_and_probabilities(network, images)
    assert_equal_maps(features, expected_features)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    assert expected.shape == (2, 3)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


def test_options_reach_the_network():
    network = classifier("xception", 80, 2, "none", "top", se_ratio=8, head_units=16, head_l1=0.0, head_dropout=0.5)
    assert (network.input_shape, network.output_shape) == ((None, 80, 80, 3), (None, 2))
    assert [(block.name, block.ratio) for block in blocks(network)] == [("block14_sepconv2_act_se", 8)]
    assert network.get_layer("hidden").units == 16
    assert network.get_layer("dropout").rate == 0.5
    assert sum(map(float, network.losses)) == 0


@pytest.mark.parametrize("backbone_name", SMALLEST)
def test_scaling_is_that_of_the_imagenet_weights(backbone_name):
    x = crops(4)
    expected = x / 127.5 - 1
    if backbone_name == "resnet50":
        expected = x[..., ::-1] - np.array([103.939, 116.779, 123.68])
    if backbone_name == "densenet169":
        expected = (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    scaled = BACKBONES[backbone_name].preprocess(keras.ops.convert_to_tensor(x))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(scaled), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backbone_name", "size"), SMALLEST.items())
def test_smaller_image_is_refused(backbone_name, size):
    message = f"image_size = {size - 1} is too small for {backbone_name}: make crops of {size} pixels or more"
    with pytest.raises(InputError, match=message):
        classifier(backbone_name, size - 1, weights="none")


# ---- against keras.applications --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=REFERENCES)
def reference(request, tmp_path_factory):
    """Name of a backbone, its network straight from Keras, that network's features, and a folder of its weight file."""
    keras.utils.clear_session()
    name = request.param
    build, preprocess = REFERENCES[name]
    network = build(include_top=False, weights=None, input_shape=(SMALLEST[name], SMALLEST[name], 3))
    move_variances(network)
    expected = outputs(network, preprocess(crops(SMALLEST[name]))).mean(axis=(1, 2))
    assert np.ptp(expected, axis=0).max() > 0.05 * expected.max()  # the features depend on the image
    folder = tmp_path_factory.mktemp("weights")
    file = folder / f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    network.save(file)
    yield name, network, expected, folder
    file.unlink()  # up to 95 MB
    keras.utils.clear_session()


def test_scaling_and_weights_are_those_of_keras(reference):
    name, _, expected, folder = reference
    network = classifier(name, SMALLEST[name], weights=str(folder), se_position="none")
    assert blocks(network) == []
    features, _ = features_and_probabilities(network, crops(SMALLEST[name]))
    assert_equal_maps(features, expected)


def test_open_blocks_change_nothing_and_half_open_ones_do(reference):
    name, network, expected, _ = reference
    network = with_squeeze_excitation(network, "stages")
    images = REFERENCES[name][1](crops(SMALLEST[name]))
    set_gates(network, bias=100)
    assert_equal_maps(outputs(network, images).mean(axis=(1, 2)), expected)
    set_gates(network, bias=0)
    assert outputs(network, images).mean(axis=(1, 2)).max() < 0.6 * expected.max()


# ---- where the blocks go, on a small network -------------------------------------------------------------------------


def small_network():
    """Unpadded convolutions, a border of zeros, and a residual block whose branches both halve the map."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, name="first")(inputs)  # 30
    x = layers.Conv2D(4, 3, name="second")(x)  # 28
    x = layers.ZeroPadding2D(1, name="border")(x)  # 30
    x = layers.MaxPooling2D(3, 2, name="pooled")(x)  # 14
    left = layers.Conv2D(4, 3, 2, padding="same", name="left")(x)  # 7
    right = layers.Conv2D(4, 1, 2, name="right_1")(x)
    right = layers.Conv2D(4, 3, padding="same", name="right_2")(right)
    x = layers.Add(name="sum")([left, right])
    shortcut = x
    x = layers.BatchNormalization(name="inside")(x)
    x = layers.Concatenate(name="joined")([x, shortcut])
    return keras.Model(inputs, layers.ReLU(name="last")(x))


def test_stage_ends_lie_on_the_trunk():
    assert stage_ends(small_network()) == ["second", "pooled", "last"]


@pytest.mark.parametrize(
    ("position", "names"), [("stages", ["second_se", "pooled_se", "last_se"]), ("top", ["last_se"]), ("none", [])]
)
def test_position_of_the_blocks(position, names):
    network = with_squeeze_excitation(small_network(), position, ratio=2)
    assert [block.name for block in blocks(network)] == names
    assert all(block.ratio == 2 for block in blocks(network))


def test_blocks_leave_layers_and_weights_as_they_are():
    network = small_network()
    weights = network.get_weights()
    with_blocks = with_squeeze_excitation(network, "stages")
    _, *kept = (layer for layer in with_blocks.layers if not isinstance(layer, SqueezeExcitation))
    assert [id(layer) for layer in kept] == [id(layer) for layer in network.layers[1:]]  # but for the input
    for weight, expected in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


# ---- weights that cannot be had --------------------------------------------------------------------------------------

XCEPTION_FILE = "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"


def test_folder_without_the_file(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/{XCEPTION_FILE} is missing")):
        classifier("xception", 71, weights=str(tmp_path))


@pytest.mark.parametrize("content", ["a web page", "another network"])
def test_folder_with_a_wrong_file(content, tmp_path):
    path = tmp_path / XCEPTION_FILE
    if content == "a web page":
        path.write_text("<html>404 Not Found</html>")
    else:
        small_network().save(path)
    with pytest.raises(InputError, match=re.escape(f"{path} does not hold xception weights")):
        classifier("xception", 71, weights=str(tmp_path))


# ---- downloads that break, from a server on this machine -------------------------------------------------------------

CONTENT = bytes(range(256)) * 400
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `CONTENT` under any name, in a way of its own; `requests` counts."""

    daemon_threads = True

    def __init__(self, way):
        super().__init__(("127.0.0.1", 0), Handler)
        self.way, self.requests, self.end = way, 0, threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, way = self.server, self.server.way
        server.requests += 1
        if way == "error":
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if way == "whole":
            self.wfile.write(CONTENT)
            return None
        self.wfile.write(b"x" * len(CONTENT) if way == "wrong hash" else CONTENT[:5000])
        self.wfile.flush()
        if way == "reset":  # no linger: the connection is reset instead of closed
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if way == "silence":
            server.end.wait()
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Function that starts a server of some way, from which a backbone called "tiny" then has its weights."""
    servers = []
    monkeypatch.setattr("models.backbones.keras_home", lambda: tmp_path)

    def start(way):
        servers.append(Server(way))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{servers[-1].server_port}/{WEIGHT_FILE.format('tiny')}"

        def build(include_top, input_tensor, weights):
            return keras.utils.get_file(
                WEIGHT_FILE.format("tiny"), origin, cache_subdir="models", cache_dir=tmp_path, file_hash=MD5
            )

        monkeypatch.setitem(BACKBONES, "tiny", Backbone(build, None, 32))
        return servers[-1]

    yield start
    for server in servers:
        server.end.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("way", ["error", "wrong hash", "cut short", "reset", "silence"])
def test_a_download_that_breaks_is_told_in_a_sentence_and_can_be_repeated(serve, monkeypatch, way):
    serve(way)
    with monkeypatch.context() as patch:
        patch.setattr("models.backbones.SILENCE", 0.5)
        with pytest.raises(InputError, match=r"weights of tiny could not be downloaded \(.*\): try again, pass"):
            load_backbone("tiny", None, "imagenet")
    assert socket.getdefaulttimeout() is None
    serve("whole")
    assert Path(load_backbone("tiny", None, "imagenet")).read_bytes() == CONTENT


def test_a_full_disk_is_no_broken_download(serve, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    serve("whole")
    monkeypatch.setitem(BACKBONES, "tiny", Backbone(full, None, 32))
    with pytest.raises(OSError, match="No space left"):
        load_backbone("tiny", None, "imagenet")


def test_a_second_process_waits_for_the_download_of_the_first(serve, tmp_path, monkeypatch):
    server, waiting = serve("whole"), threading.Event()
    monkeypatch.setattr("models.backbones.print", lambda text: waiting.set(), raising=False)
    # The lock is inside, so that it is released before the pool waits for its thread.
    with ThreadPoolExecutor(1) as pool, lock(tmp_path / "models" / f"{WEIGHT_FILE.format('tiny')}.lock"):
        second = pool.submit(load_backbone, "tiny", None, "imagenet")
        assert waiting.wait(timeout=60)
        assert server.requests == 0
    assert Path(second.result()).read_bytes() == CONTENT


def test_weights_in_a_folder_without_locks_are_still_read(serve, monkeypatch):
    def none(path, timeout=0):
        raise InputError("no locks")

    monkeypatch.setattr("models.backbones.lock", none)
    serve("whole")
    assert Path(load_backbone("tiny", None, "imagenet")).read_bytes() == CONTENT
