"""The U-Net, its loss, and the segmentation of files with any network."""

import math
from dataclasses import replace

import keras
import numpy as np
import pytest

from config import Config
from data.images import write_image
from models.backbones import BACKBONES
from models.unet import bce_dice, unet, unet_with_encoder
from pipeline import devices
from pipeline.inference import segment as segment_and_use
from utils.errors import InputError


def segment(network, paths, *arguments, **settings):
    """The masks of some files."""
    return segment_and_use(network, paths, lambda path, mask: mask, *arguments, **settings)


@pytest.mark.parametrize(("side", "blocks", "batch_norm"), [(16, 3, False), (20, 3, True), (7, 1, False)])
def test_gives_a_probability_a_pixel(side, blocks, batch_norm):
    network = unet(side, blocks, filters=2, batch_norm=batch_norm)
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.float32)
    outputs = keras.ops.convert_to_numpy(network(images, training=False))
    assert outputs.shape == (2, side, side, 1)
    assert outputs.dtype == np.float32
    assert 0 <= outputs.min() < outputs.max() <= 1


def test_the_momentum_of_batch_normalisation_is_the_one_asked_for():
    network = unet(8, 2, filters=2, batch_norm=True, batch_norm_momentum=0.7)
    momenta = [layer.momentum for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert momenta == [0.7] * 6


def test_published_size():
    expected, channels = 0, 3
    for filters in (32, 64, 128, 256, 512):  # down: two 3x3 convolutions
        expected += (9 * channels * filters + filters) + (9 * filters * filters + filters)
        channels = filters
    for filters in (256, 128, 64, 32):  # up: a 2x2 transposed convolution, the skip beside it, two 3x3 convolutions
        expected += 4 * channels * filters + filters
        expected += (9 * 2 * filters * filters + filters) + (9 * filters * filters + filters)
        channels = filters
    expected += channels + 1  # the 1x1 convolution
    network = unet()
    assert network.count_params() == expected
    assert network.output_shape == (None, 224, 224, 1)


def test_batch_norm_stands_between_convolution_and_relu_and_replaces_the_bias():
    block = ["Conv2D", "ReLU", "Conv2D", "ReLU"]
    block_with_norm = ["Conv2D", "BatchNormalization", "ReLU", "Conv2D", "BatchNormalization", "ReLU"]
    for batch_norm, expected in ((False, block), (True, block_with_norm)):
        _, _, *body, last = unet(8, blocks=1, filters=4, batch_norm=batch_norm).layers
        assert [type(layer).__name__ for layer in body] == expected
        assert {layer.use_bias for layer in body if isinstance(layer, keras.layers.Conv2D)} == {not batch_norm}
        assert last.use_bias


def test_scales_pixels_from_0_to_255_itself():
    network = unet(4, blocks=1, filters=1)
    first, _, second, _, last, _ = weights = [np.zeros(weight.shape) for weight in network.weights]
    first[1, 1, 0, 0] = second[1, 1, 0, 0] = last[0, 0, 0, 0] = 1  # hands on the red of each pixel
    network.set_weights(weights)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    expected = 1 / (1 + np.exp(-images[..., :1] / 255))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(network(images, training=False)), expected, rtol=1e-5)


def test_saved_network_gives_the_same_outputs(tmp_path):
    network = unet(16, blocks=3, filters=2, batch_norm=True)
    rng = np.random.default_rng(0)
    for weight in network.non_trainable_weights:  # the moving statistics
        weight.assign(rng.uniform(0.5, 2, weight.shape))
    network.save(tmp_path / "unet.keras")
    loaded = keras.saving.load_model(tmp_path / "unet.keras")
    images = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    outputs, expected = (keras.ops.convert_to_numpy(model(images, training=False)) for model in (loaded, network))
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


# Filters and sides of the skips at 96 pixels, from the finest to the coarsest, and what they are resized to from.
ENCODERS = {
    "resnet50": [(48, 64), (24, 256), (12, 512), (6, 1024), (3, 2048)],
    "densenet169": [(48, 64), (24, 128), (12, 256), (6, 640), (3, 1664)],
    "inception_v3": [(45, 64), (20, 192), (9, 288), (4, 768), (1, 2048)],
    "inception_resnet_v2": [(45, 64), (20, 192), (9, 320), (4, 1088), (1, 1536)],
    "xception": [(45, 64), (23, 128), (12, 256), (6, 728), (3, 2048)],
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_backbone_as_encoder_hands_over_its_last_map_of_each_resolution(encoder):
    network = unet_with_encoder(encoder, 96, filters=2, batch_norm_momentum=0.7, weights="none")
    *skips, deepest = ENCODERS[encoder]
    joined = [layer for layer in network.layers if isinstance(layer, keras.layers.Concatenate)][-len(skips) :]
    assert [layer.input[0].shape[2:] for layer in joined] == skips[::-1]
    below = [deepest, *((side, 2 * 2**level) for level, (side, _) in reversed(list(enumerate(skips))))]
    upsampled = [layer for layer in network.layers if isinstance(layer, keras.layers.Resizing)]
    assert [layer.input.shape[2:] for layer in upsampled] == [*below[:-1], (skips[0][0], 1)]
    assert {layer.momentum for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)} == {0.7}
    assert network.output_shape == (None, 96, 96, 1)
    assert network.name == "unet"


def test_a_backbones_scaling_is_part_of_the_network():
    network = unet_with_encoder("densenet169", 32, filters=2, weights="none")
    first = keras.Model(network.input, network.get_layer("conv1_conv").output)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    scaled = BACKBONES["densenet169"].preprocess(images.copy())
    padded = np.pad(keras.ops.convert_to_numpy(scaled), ((0, 0), (3, 3), (3, 3), (0, 0)))
    expected = keras.ops.conv(padded, network.get_layer("conv1_conv").kernel, strides=2, padding="valid")
    found, expected = (keras.ops.convert_to_numpy(x) for x in (first(images, training=False), expected))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("precision", "encoder"), [("float32", "resnet50"), ("mixed_bfloat16", "xception")])
def test_a_network_with_an_encoder_is_saved_and_loaded_by_keras_alone(tmp_path, precision, encoder):
    keras.config.set_dtype_policy(precision)
    try:
        network = unet_with_encoder(encoder, 72, filters=2, weights="none")
    finally:
        keras.config.set_dtype_policy("float32")
    network.save(tmp_path / "unet.keras")
    loaded = keras.saving.load_model(tmp_path / "unet.keras")
    for found, saved in zip(loaded.variables, network.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (found, saved)))
    images = np.random.default_rng(0).integers(0, 256, (2, 72, 72, 3)).astype(np.float32)
    outputs, expected = (model(images, training=False) for model in (loaded, network))
    assert {keras.backend.standardize_dtype(x.dtype) for x in (outputs, expected)} == {"float32"}
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (outputs, expected)), rtol=1e-5, atol=1e-6)


def test_an_image_too_small_for_the_encoder_is_refused():
    with pytest.raises(InputError, match="unet_image_size = 64 is too small for xception: take 71 pixels or more"):
        unet_with_encoder("xception", 64, weights="none")


def test_bce_dice_is_a_loss_an_image():
    masks = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], np.uint8).reshape(2, 2, 2, 1)
    probabilities = np.array([[0.8, 0.1, 0.1, 0.2], [0.5, 0.5, 0.5, 0.5]], np.float32).reshape(2, 2, 2, 1)
    expected = [
        -(2 * math.log(0.8) + 2 * math.log(0.9)) / 4 + 1 - 2 * 0.8 / (1 + 1.2),  # a small lesion counts as much
        -math.log(0.5) + 1 - 2 * 1.5 / (3 + 2),
    ]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(bce_dice(masks, probabilities)), expected, rtol=1e-5)


def test_bce_dice_of_the_mask_itself_is_0():
    masks = np.random.default_rng(0).integers(0, 2, (3, 4, 4, 1)).astype(np.float32)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(bce_dice(masks, masks)), 0, atol=1e-5)


class Brightness:
    """Stands for a U-Net: takes brightness for the probability of lesion, and notes the sizes of its batches."""

    input_shape = (None, 32, 32, 3)

    def __init__(self):
        self.batches = []

    def predict_on_batch(self, images):
        self.batches.append(len(images))
        return images.mean(axis=-1, keepdims=True) / 255


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of five images, dark with one bright box each; and the masks of the boxes."""
    folder = tmp_path_factory.mktemp("images")
    boxes = {  # height, width, the box in eighths of them: top, bottom, left, right
        "e.png": (40, 60, 1, 4, 1, 4),
        "d.jpg": (160, 200, 4, 7, 1, 4),
        "c.png": (32, 32, 1, 4, 4, 7),
        "b.jpg": (72, 64, 4, 7, 4, 7),
        "a.png": (16, 24, 2, 6, 2, 6),
    }
    masks = []
    for name, (height, width, *box) in boxes.items():
        mask = np.zeros((height, width), np.uint8)
        top, bottom, left, right = box
        mask[top * height // 8 : bottom * height // 8, left * width // 8 : right * width // 8] = 255
        write_image(folder / name, np.repeat(np.where(mask > 0, np.uint8(240), np.uint8(20))[..., None], 3, axis=-1))
        masks.append(mask)
    return [folder / name for name in boxes], masks


def assert_masks_agree(masks, expected):
    for mask, box in zip(masks, expected, strict=True):
        assert mask.dtype == np.uint8
        assert mask.shape == box.shape
        assert set(np.unique(mask)) == {0, 255}
        assert (mask & box).sum() > 0.9 * (mask | box).sum()


@pytest.mark.parametrize("batch_size", [2, 8])
def test_segment_gives_masks_of_the_images_sizes_in_their_order(files, batch_size):
    inputs = keras.Input((32, 32, 3))
    network = keras.Model(inputs, keras.ops.mean(inputs, axis=-1, keepdims=True) / 255)
    paths, boxes = files
    assert_masks_agree(segment(network, paths, batch_size, workers=2, sigma=0, threshold=0.5), boxes)


def test_segment_works_batch_by_batch(files):
    network = Brightness()
    paths, boxes = files
    masks = segment(network, paths, batch_size=2, workers=2, sigma=0, threshold=0.5)
    first = next(masks)
    assert network.batches == [2, 2]  # the first masks are finished while the network runs on the next files
    assert_masks_agree([first, *masks], boxes)
    assert network.batches == [2, 2, 2]  # the last one is filled up


def test_segment_smooths_and_thresholds(files):
    path, box = files[0][2], files[1][2]  # of the network's own size
    areas = {
        (sigma, threshold): np.count_nonzero(next(segment(Brightness(), [path], 1, 1, sigma, threshold)))
        for sigma, threshold in ((0, 0.5), (0, 0.99), (3, 0.5), (3, 0.8))
    }
    assert areas[0, 0.5] == np.count_nonzero(box)
    assert areas[0, 0.99] == 0
    assert 0 < areas[3, 0.8] < areas[3, 0.5] < areas[0, 0.5]  # the corners go first


def test_segment_of_no_files_gives_nothing():
    assert list(segment(Brightness(), [], batch_size=2, workers=1, sigma=0, threshold=0.5)) == []


def test_segment_hands_each_mask_over_with_its_file(files):
    used = segment_and_use(Brightness(), files[0], lambda path, mask: (path, mask.shape), 2, 2, 0, 0.5)
    assert list(used) == [(path, box.shape[:2]) for path, box in zip(*files, strict=True)]


def test_segment_names_the_file_it_cannot_read(files, tmp_path):
    paths, _ = files
    masks = segment(Brightness(), [*paths[:3], tmp_path / "lost.jpg"], batch_size=2, workers=2, sigma=0, threshold=0.5)
    with pytest.raises(InputError, match=r"lost\.jpg"):
        list(masks)


@pytest.mark.parametrize(("asked", "said"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("auto", None)])
def test_what_the_precision_became_is_said(capsys, asked, said):
    devices.say_once.cache_clear()
    said = said or (devices.gpu_precision() if devices.device() == "gpu" else devices.cpu_precision())
    try:
        devices.set_devices_and_precision(replace(Config(), mixed_precision=asked))
        network = unet(8, 2, filters=2)
        assert devices.computed_with().endswith(f"on {devices.device()}, {said}")
        assert said in devices.computed_with(network)
    finally:
        keras.config.set_dtype_policy("float32")
    devices.set_devices_and_precision(replace(Config(), mixed_precision=asked))
    keras.config.set_dtype_policy("float32")
    assert capsys.readouterr().out.count(f"computing with {keras.backend.backend()} ") == 1


@pytest.mark.parametrize(
    ("flags", "onednn", "expected"),
    [
        ("fma avx512_bf16 avx2", "1", "bfloat16"),
        ("amx_bf16", "1", "bfloat16"),
        ("avx512f avx2", "1", "float32"),
        ("amx_bf16", "0", "float32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_if_its_flags_say_so(monkeypatch, tmp_path, flags, onednn, expected):
    (tmp_path / "cpuinfo").write_text(f"model name : any\nflags : {flags} sse\n")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    assert devices.cpu_precision() == (expected if keras.backend.backend() == "tensorflow" else "float32")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "missing")
    assert devices.cpu_precision() == "float32"
