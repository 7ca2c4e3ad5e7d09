"""The loss of images drawn by class."""

import keras
import numpy as np
import pytest

from models.cross_entropy import PriorCorrectedCrossentropy


def test_equals_the_cross_entropy_of_the_corrected_probabilities():
    rng = np.random.default_rng(0)
    labels, probabilities = np.eye(3)[rng.integers(3, size=20)], rng.dirichlet(np.ones(3), size=20)
    ratio = np.array([3.0, 1.5, 0.5])
    drawn = probabilities * ratio / (probabilities @ ratio)[:, None]
    smooth = 0.9 * labels + 0.1 / 3
    loss = PriorCorrectedCrossentropy(ratio, label_smoothing=0.1)
    assert float(loss(labels, probabilities)) == pytest.approx(-(smooth * np.log(drawn)).sum(axis=1).mean(), rel=1e-5)
    copy = PriorCorrectedCrossentropy.from_config(loss.get_config())
    assert float(copy(labels, probabilities)) == float(loss(labels, probabilities))


def test_with_nothing_to_correct_it_is_the_plain_one():
    rng = np.random.default_rng(0)
    labels, probabilities = np.eye(3)[rng.integers(3, size=20)], rng.dirichlet(np.ones(3), size=20)
    plain = keras.losses.CategoricalCrossentropy()
    assert float(PriorCorrectedCrossentropy([1, 1, 1])(labels, probabilities)) == pytest.approx(
        float(plain(labels, probabilities)), rel=1e-6
    )


def test_a_network_fitted_on_balanced_draws_predicts_the_true_prior():
    """A feature that says nothing: what is left to predict is how often each class truly occurs."""
    prior = np.array([0.2, 0.1, 0.7])
    balanced = np.eye(3, dtype=np.float32)[np.arange(300) % 3]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, activation="softmax", use_bias=True)])
    model.compile(keras.optimizers.Adam(0.05), PriorCorrectedCrossentropy((1 / 3) / prior))
    model.fit(np.zeros((300, 1)), balanced, batch_size=100, epochs=150, verbose=0)
    np.testing.assert_allclose(model.predict(np.zeros((1, 1)), verbose=0)[0], prior, atol=0.01)
