"""Temperature scaling: one number makes probabilities less, or more, confident.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from models.stacking import log_probabilities

RANGE = (0.05, 20.0)  # of temperatures; if the diagnosis of every image is right, the best would be 0


def fit_temperature(probabilities, labels):
    """Find the temperature with the smallest cross-entropy.

    Args:
        probabilities: array (images, classes).
        labels: one-hot array (images, classes).

    Returns:
        The temperature, a float within `RANGE`. If it is above 1, the probabilities were overconfident.
    """

    def cross_entropy(log_temperature):
        scaled = scale_temperature(probabilities, np.exp(log_temperature))
        return -np.mean(np.sum(labels * log_probabilities(scaled), axis=1))

    result = minimize_scalar(cross_entropy, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(result.x))


def scale_temperature(probabilities, temperature):
    """Softmax of the logarithms of probabilities (images, classes), divided by a temperature; float64."""
    return softmax(log_probabilities(probabilities) / temperature, axis=1)


def scaled_mean(temperature, predictions):
    """Temperature-scaled mean (images, classes) of predictions (images, classes, voters)."""
    return scale_temperature(np.mean(predictions, axis=-1), temperature)
