"""The voting network: its size, its bounds, and weights that no two classes share."""

import keras
import numpy as np
import pytest

from models.vote import vote_network


@pytest.fixture
def network():
    """A voting network of random weights."""
    network = vote_network()
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=weight.shape) for weight in network.weights])
    return network


@pytest.fixture(scope="module")
def predictions():
    """Probabilities (images, classes, voters) that sum to 1 over the classes."""
    return np.random.default_rng(1).dirichlet(np.ones(3), size=(16, 5)).swapaxes(1, 2).astype(np.float32)


def votes(network, predictions):
    return keras.ops.convert_to_numpy(network(predictions))


@pytest.mark.parametrize(("sizes", "parameters"), [((), 423), ((3, 2, 4), 2 * (3 * 4 + 4) + 2 * (4 + 1))])
def test_number_of_parameters(sizes, parameters):
    assert vote_network(*sizes).count_params() == parameters


def test_equals_the_equations(network, predictions):
    kernel_1, bias_1, kernel_2, bias_2 = network.get_weights()
    scores = np.empty((16, 3))
    for image in range(16):
        for c in range(3):
            hidden = np.maximum(predictions[image, c] @ kernel_1[c] + bias_1[c], 0)
            scores[image, c] = 1 / (1 + np.exp(-(hidden @ kernel_2[c, :, 0] + bias_2[c, 0])))
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(votes(network, predictions), expected, rtol=1e-5)


def test_outputs_are_bounded_probabilities(network, predictions):
    network.set_weights([100 * weight for weight in network.get_weights()])
    outputs = votes(network, predictions)
    assert outputs.shape == (16, 3)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-6)
    assert outputs.min() >= 1 / (1 + 2 * np.e) - 1e-6
    assert outputs.max() <= np.e / (np.e + 2) + 1e-6


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_are_reached(network, predictions, sign):
    *others, bias = network.get_weights()
    network.set_weights([*(np.zeros_like(weight) for weight in others), sign * np.reshape([99, -99, -99], bias.shape)])
    bound = np.e / (np.e + 2) if sign == 1 else 1 / (1 + 2 * np.e)
    np.testing.assert_allclose(votes(network, predictions)[:, 0], bound, rtol=1e-5)


def test_every_class_has_weights_of_its_own(network, predictions):
    before = votes(network, predictions)
    weights = network.get_weights()
    for weight in weights:
        weight[0] = 0.1
    network.set_weights(weights)
    after = votes(network, predictions)
    assert (np.abs(after[:, 0] - before[:, 0]) > 1e-4).all()
    np.testing.assert_allclose(after[:, 1] / after[:, 2], before[:, 1] / before[:, 2], rtol=1e-5)


def test_saved_network_gives_the_same_outputs(network, predictions, tmp_path):
    network.save(tmp_path / "vote.keras")
    loaded = keras.saving.load_model(tmp_path / "vote.keras")
    np.testing.assert_array_equal(votes(loaded, predictions), votes(network, predictions))
