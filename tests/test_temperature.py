"""Temperature scaling."""

import numpy as np
import pytest
from scipy.special import softmax

from models.temperature import RANGE, fit_temperature, scale_temperature
from tests.test_metrics import diagnosis_metrics


@pytest.fixture
def drawn():
    """Probabilities (images, classes) and one-hot labels that were drawn by them."""
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(size=(4000, 3)), axis=1)
    return probabilities, np.eye(3)[[rng.choice(3, p=row) for row in probabilities]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_an_overconfident_forecaster_is_found(drawn, temperature):
    probabilities, labels = drawn
    overconfident = scale_temperature(probabilities, 1 / temperature)
    assert fit_temperature(overconfident, labels) == pytest.approx(temperature, rel=0.06)


def test_scaled_probabilities_are_better_calibrated_and_keep_their_order(drawn):
    probabilities, labels = drawn
    overconfident = scale_temperature(probabilities, 1 / 3)
    scaled = scale_temperature(overconfident, fit_temperature(overconfident, labels))
    before, after = diagnosis_metrics(labels, overconfident), diagnosis_metrics(labels, scaled)
    assert after["calibration_error"] < before["calibration_error"] / 4
    np.testing.assert_array_equal(np.argsort(scaled), np.argsort(overconfident))
    np.testing.assert_allclose(scaled.sum(axis=1), 1)


def test_where_every_image_is_right_or_a_probability_is_zero_the_temperature_is_finite():
    labels = np.eye(3)[[0, 1, 2, 0]]
    assert RANGE[0] <= fit_temperature(labels * 0.8 + 0.1 * (1 - labels), labels) <= RANGE[1]
    assert RANGE[0] <= fit_temperature(np.roll(labels, 1, axis=1), labels) <= RANGE[1]
