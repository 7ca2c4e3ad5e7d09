"""Grad-CAM in closed form, against derivatives that know nothing of it."""

import keras
import numpy as np
import pytest

from data.images import resize
from models.backbones import classifier
from models.grad_cam import grad_cam

CLASSES = [0, 2, 1]


@pytest.fixture(scope="module", params=[("resnet50", 64), ("xception", 96)], ids=lambda param: param[0])
def case(request):
    """A classifier of random weights, crops, and what its head sees: feature maps of 2x2 or 3x3."""
    name, side = request.param
    keras.utils.set_random_seed(1)
    network = classifier(name, side, weights="none")
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    inner = keras.Model(network.inputs[0], network.get_layer("pool").input)
    return network, images, keras.ops.convert_to_numpy(inner(images, training=False))


def expected_maps(features, gradients, side):
    """Equations 1 and 2 of the paper, then the crop's size and a maximum of 1."""
    weights = gradients.mean(axis=(1, 2))
    maps = [resize(np.maximum(f @ w, 0).astype(np.float32), side, side) for f, w in zip(features, weights, strict=True)]
    return np.stack([one / (one.max() or 1) for one in maps])


def scores(network, features):
    """Scores of the classes before the softmax, from feature maps (images, height, width, channels), in float64."""
    (kernel, bias), (last_kernel, last_bias) = (
        network.get_layer(name).get_weights() for name in ("hidden", "diagnosis")
    )
    hidden = np.maximum(features.astype(np.float64).mean(axis=(1, 2)) @ kernel + bias, 0)
    return hidden @ last_kernel + last_bias


@pytest.mark.parametrize("case", [("resnet50", 64)], ids=["resnet50"], indirect=True)  # xception has 300 MB of maps
def test_maps_follow_the_numerical_derivative(case):
    network, images, features = case
    exponentials = np.exp(scores(network, features))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    outputs = keras.ops.convert_to_numpy(network(images, training=False))
    np.testing.assert_allclose(probabilities, outputs, atol=1e-4)  # this is the head

    channels, step = features.shape[-1], 1e-6 * features.max()  # too short to reach the ReLU's kink
    gradients = np.zeros(features.shape)
    for i, k in enumerate(CLASSES):
        for y, x in np.ndindex(features.shape[1:3]):
            moved = np.repeat(features[i : i + 1].astype(np.float64), channels, axis=0)
            moved[np.arange(channels), y, x, np.arange(channels)] += step
            gradients[i, y, x] = (scores(network, moved)[:, k] - scores(network, features)[i, k]) / step
    maps = grad_cam(network, images, CLASSES)
    assert maps.dtype == np.float32
    assert maps.any()
    np.testing.assert_allclose(maps, expected_maps(features, gradients, images.shape[1]), atol=1e-3)


def test_maps_follow_automatic_differentiation(case):
    tensorflow = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the gradient tape is TensorFlow's")
    network, images, features = case
    diagnosis = network.get_layer("diagnosis")
    with tensorflow.GradientTape() as tape:
        watched = tensorflow.convert_to_tensor(features)
        tape.watch(watched)
        hidden = network.get_layer("hidden")(network.get_layer("pool")(watched))
        logits = hidden @ diagnosis.kernel + diagnosis.bias
        chosen = tensorflow.gather(logits, CLASSES, batch_dims=1)
    gradients = tape.gradient(chosen, watched).numpy()
    np.testing.assert_allclose(
        grad_cam(network, images, CLASSES), expected_maps(features, gradients, images.shape[1]), atol=1e-4
    )


def test_a_map_is_nought_where_nothing_speaks_for_the_class(case):
    network, images, _ = case
    hidden, diagnosis = network.get_layer("hidden"), network.get_layer("diagnosis")
    before = hidden.get_weights(), diagnosis.get_weights()
    # Feature maps are not negative, and with these kernels every one of them speaks against class 0 and for class 1.
    hidden.set_weights([np.ones_like(before[0][0]), before[0][1]])
    diagnosis.set_weights([np.tile(np.float32([-1, 1, 0]), (len(before[1][0]), 1)), before[1][1]])
    try:
        maps = grad_cam(network, images[:2], [0, 1])
    finally:
        hidden.set_weights(before[0])
        diagnosis.set_weights(before[1])
    assert not maps[0].any()
    assert maps[1].max() == 1
    assert maps[1].min() >= 0
