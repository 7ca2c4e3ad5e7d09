"""Stacking: a logistic regression on the classifiers' log-probabilities.

Source: Wolpert, "Stacked Generalization", Neural Networks 5, 1992, https://doi.org/10.1016/S0893-6080(05)80023-1.
"""

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

SMALLEST_PROBABILITY = 1e-6  # a float32 softmax can be 0, which has no logarithm


def fit_stacking(predictions, labels, c=1.0):
    """Fit the regression.

    Args:
        predictions: probabilities (images, classes, voters).
        labels: one-hot array (images, classes).
        c: inverse strength of the L2 penalty.

    Returns:
        Dictionary of lists, for JSON and for `stack`: `classes`, indices of the classes that occur; `weights`
        (occurring classes, classes, voters); `biases` (occurring classes,).
    """
    classes = np.unique(labels.argmax(axis=1))
    if len(classes) == 1:  # LogisticRegression refuses a single class
        return {"classes": classes.tolist(), "weights": np.zeros((1, *predictions.shape[1:])).tolist(), "biases": [0.0]}
    regression = LogisticRegression(C=c, max_iter=10_000)
    regression.fit(log_probabilities(predictions).reshape(len(predictions), -1), labels.argmax(axis=1))
    weights, biases = regression.coef_, regression.intercept_
    if len(classes) == 2:  # then scikit-learn holds the difference of the two scores
        weights, biases = np.vstack([-weights, weights]) / 2, np.hstack([-biases, biases]) / 2
    return {
        "classes": classes.tolist(),
        "weights": weights.reshape(-1, *predictions.shape[1:]).tolist(),
        "biases": biases.tolist(),
    }


def stack(stacking, predictions):
    """Predict: softmax of the weighted log-probabilities.

    Args:
        stacking: what `fit_stacking` returned.
        predictions: probabilities (images, classes, voters).

    Returns:
        Probabilities (images, classes), float64; 0 for a class that did not occur in the fit.
    """
    scores = np.einsum("icv,kcv->ik", log_probabilities(predictions), stacking["weights"]) + stacking["biases"]
    probabilities = np.zeros(predictions.shape[:2])
    probabilities[:, stacking["classes"]] = softmax(scores, axis=1)
    return probabilities


def log_probabilities(predictions):
    """Natural logarithms. Smaller probabilities are replaced by `SMALLEST_PROBABILITY`."""
    return np.log(np.maximum(predictions, SMALLEST_PROBABILITY))
