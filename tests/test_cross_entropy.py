"""How classifiers are trained on images drawn by class, and validated on images as they are."""

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.cross_entropy import MeanAUC, PriorCorrected

PRIOR = np.array([0.187, 0.127, 0.686])  # of ISIC 2017's training split


@pytest.fixture
def model():
    """Function that makes a compiled classifier of one number; its probabilities do not depend on it."""

    def make(prior_ratio, label_smoothing=0.0, penalty=0.0):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((1,))
        regularizer = keras.regularizers.L1(penalty)
        dense = keras.layers.Dense(3, activation="softmax", bias_regularizer=regularizer, name="diagnosis")
        model = PriorCorrected(inputs, dense(inputs), name="tiny")
        model.prior_ratio.assign(prior_ratio)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
        model.compile(keras.optimizers.Adam(0.05), loss)
        return model

    return make


def cross_entropy(labels, probabilities):
    return -(labels * np.log(probabilities)).sum(axis=1).mean()


def test_the_training_loss_is_that_of_the_corrected_probabilities(model):
    rng = np.random.default_rng(0)
    labels, probabilities = np.eye(3)[rng.integers(3, size=20)], rng.dirichlet(np.ones(3), size=20)
    labels, probabilities = labels.astype(np.float32), probabilities.astype(np.float32)
    ratio = np.array([3.0, 1.5, 0.5])
    drawn = probabilities * ratio / (probabilities @ ratio)[:, None]
    smooth = 0.9 * labels + 0.1 / 3
    found = model(ratio, label_smoothing=0.1).compute_loss(y=labels, y_pred=probabilities)
    assert float(found) == pytest.approx(cross_entropy(smooth, drawn), rel=1e-5)


def test_a_confident_error_has_its_gradient(model):
    network = model([1, 1, 1])
    network.optimizer = keras.optimizers.SGD(1.0)
    network.get_layer("diagnosis").set_weights([np.zeros((1, 3)), np.array([0.0, 0.0, 25.0])])
    network.train_on_batch(np.zeros((1, 1), np.float32), np.eye(3, dtype=np.float32)[:1])
    np.testing.assert_allclose(network.get_layer("diagnosis").get_weights()[1], [1, 0, 24], atol=1e-4)


def test_the_validation_loss_is_the_plain_one_and_least_for_the_true_prior(model):
    """ISIC 2017's prior as a constant answer, against the answer that the corrected loss preferred."""
    labels = np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], [30, 42, 78])]  # validation
    network, losses = model((1 / 3) / PRIOR, label_smoothing=0.1, penalty=0.01), {}
    for name, answer in {"right": PRIOR, "wrong": PRIOR**2 / (PRIOR**2).sum()}.items():
        network.get_layer("diagnosis").set_weights([np.zeros((1, 3)), np.log(answer)])
        found = network.evaluate(np.zeros((150, 1)), labels, batch_size=64, verbose=0)
        losses[name] = cross_entropy(labels, np.tile(answer, (150, 1)))
        assert found == pytest.approx(losses[name] + 0.01 * np.abs(np.log(answer)).sum(), rel=1e-4)
    assert losses["right"] < losses["wrong"]


def test_a_network_fitted_on_balanced_draws_predicts_the_true_prior(model):
    """A feature that says nothing: what is left to predict is how often each class truly occurs."""
    prior = np.array([0.2, 0.1, 0.7])
    balanced = np.eye(3, dtype=np.float32)[np.arange(300) % 3]
    network = model((1 / 3) / prior)
    network.fit(np.zeros((300, 1)), balanced, batch_size=100, epochs=150, verbose=0)
    np.testing.assert_allclose(network.predict(np.zeros((1, 1)), verbose=0)[0], prior, atol=0.01)


def test_a_changed_prior_reaches_a_step_that_is_compiled_already(model):
    network = model([1, 1, 1])
    images, labels = np.zeros((4, 1), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    network.optimizer.learning_rate = 0.0
    plain = network.train_on_batch(images, labels)
    network.prior_ratio.assign([4, 1, 1])
    corrected = np.array([4, 1, 1]) / 6
    probabilities = network.predict(images, verbose=0)
    drawn = probabilities * corrected
    expected = cross_entropy(labels, drawn / drawn.sum(axis=1, keepdims=True))
    assert network.train_on_batch(images, labels) == pytest.approx(expected, rel=1e-4)
    assert plain == pytest.approx(cross_entropy(labels, probabilities), rel=1e-4)


@pytest.mark.parametrize(("classes", "tasks"), [([0, 1, 2, 2, 0, 1], [0, 1]), ([0, 2, 2, 0], [0]), ([2, 2], [])])
def test_the_mean_area_is_of_the_tasks_that_are_defined(classes, tasks):
    rng = np.random.default_rng(0)
    labels, probabilities = np.eye(3)[classes], rng.dirichlet(np.ones(3), size=len(classes))
    metric = MeanAUC(2, 3)
    for rows in (slice(0, 2), slice(2, None)):  # in two batches
        if len(labels[rows]):
            metric.update_state(labels[rows], probabilities[rows])
    areas = [roc_auc_score(labels[:, task], probabilities[:, task]) for task in tasks]
    assert float(metric.result()) == pytest.approx(np.mean(areas) if areas else np.nan, abs=1e-3, nan_ok=True)
