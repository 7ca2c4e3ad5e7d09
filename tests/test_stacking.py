"""Stacking, compared with scikit-learn's own predictions."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.stacking import fit_stacking, stack


@pytest.fixture
def predictions():
    """Probabilities (images, classes, voters) that sum to 1 over the classes."""
    return np.random.default_rng(0).dirichlet(np.ones(3), size=(30, 2)).swapaxes(1, 2)


@pytest.mark.parametrize("occurring", [[0, 1, 2], [0, 2]])
def test_equals_logistic_regression(predictions, occurring):
    truth = np.resize(occurring, 30)
    regression = LogisticRegression(C=0.5, max_iter=10_000)
    regression.fit(np.log(predictions).reshape(30, 6), truth)
    expected = np.zeros((30, 3))
    expected[:, occurring] = regression.predict_proba(np.log(predictions).reshape(30, 6))
    stacking = json.loads(json.dumps(fit_stacking(predictions, np.eye(3)[truth], 0.5)))
    np.testing.assert_allclose(stack(stacking, predictions), expected, rtol=1e-9)


def test_a_single_class_is_certain(predictions):
    stacking = fit_stacking(predictions, np.eye(3)[np.zeros(30, int)])
    np.testing.assert_array_equal(stack(stacking, predictions), np.tile([1, 0, 0], (30, 1)))


def test_a_probability_of_0_is_no_obstacle(predictions):
    predictions[:5, 1] = 0
    labels = np.eye(3)[np.resize([0, 1, 2], 30)]
    probabilities = stack(fit_stacking(predictions, labels), predictions)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
