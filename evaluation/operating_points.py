"""Operating points: thresholds of a score that reach a chosen sensitivity."""

from dataclasses import dataclass

import numpy as np

from data.classes import positive_class
from evaluation.metrics import SENSITIVITIES, count_positives

SUSPECT_SENSITIVITY = SENSITIVITIES[1]  # of the operating point that is shown by default


@dataclass(frozen=True)
class OperatingPoint:
    """The probability from which an image is suspect."""

    class_name: str
    """The class that it is about."""
    sensitivity: float
    """Share of the images of this class that should be found."""
    threshold: float
    """Probability, by the method that decides."""
    split: str
    """The images that the threshold was chosen on."""

    def __str__(self):
        return f"{self.class_name} from {self.threshold:.3f} on: {self.sensitivity:.0%} sensitivity on {self.split}"


def thresholds(labels, scores, sensitivities=SENSITIVITIES):
    """Find the highest threshold that reaches each sensitivity. The answer is yes for a score from the threshold on.

    Args:
        labels: array (images,), true or 1 where the answer should be yes.
        scores: array (images,) of scores for yes.
        sensitivities: shares of the positive images to find, above 0 and up to 1.

    Returns:
        Dictionary from each sensitivity to a dictionary of floats: the `threshold`, and the `sensitivity` and
        `specificity` of these images at this threshold. It is empty if no image is positive, or if none is negative.
    """
    truth, scores = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    if truth.all() or not truth.any():
        return {}
    ((true_positive,), (false_positive,)) = count_positives(truth, scores, np.ones((1, len(truth))))
    distinct = np.unique(scores)[::-1]
    points = {}
    for sensitivity in sensitivities:
        first = np.argmax(true_positive / true_positive[-1] >= sensitivity)  # 0 is a threshold above all scores
        points[sensitivity] = {
            "threshold": float(distinct[max(first - 1, 0)]),
            "sensitivity": float(true_positive[first] / true_positive[-1]),
            "specificity": float((false_positive[-1] - false_positive[first]) / false_positive[-1]),
        }
    return points


def at_threshold(labels, scores, threshold):
    """Sensitivity (None without positive images) and specificity (None without negative images) at a threshold.

    Args:
        labels: array (images,), true or 1 where the answer should be yes.
        scores: array (images,) of scores for yes.
        threshold: the lowest score that is a yes.
    """
    truth, answers = np.asarray(labels).astype(bool), np.asarray(scores) >= threshold
    sensitivity = float(answers[truth].mean()) if truth.any() else None
    return sensitivity, float((~answers[~truth]).mean()) if not truth.all() else None


def kept_operating_points(labels, scores, *, split, class_name):
    """The operating points of one method, in the form of operating_points.json.

    Each threshold of `thresholds` is lowered halfway to the next lower score. So rounding of scores moves no image
    across it.

    Args:
        labels, scores: see `thresholds`.
        split: name of the images that they are chosen on.
        class_name: the class that they are about.

    Returns:
        Dictionary of `class`, `split`, the numbers of `images` and `positive` ones, and `points`, a list of
        dictionaries with the wanted `sensitivity`, the `threshold`, and the `reached` sensitivity and the `specificity`
        on these images.
    """
    scores, points = np.asarray(scores, dtype=np.float64), []
    for wanted, point in thresholds(labels, scores).items():
        threshold = (point["threshold"] + scores[scores < point["threshold"]].max(initial=0)) / 2
        reached = {"reached": point["sensitivity"], "specificity": point["specificity"]}
        points.append({"sensitivity": wanted, "threshold": float(threshold), **reached})
    return {
        "class": class_name,
        "split": split,
        "images": len(scores),
        "positive": int(np.sum(labels)),
        "points": points,
    }


def points_by_method(labels, methods, *, classes, split, fitted_on):
    """Operating points for the positive class, of every method that was not fitted on these images.

    Args:
        labels: one-hot array (images, classes).
        methods: dictionary from method to probabilities (images, classes).
        classes: names of the classes.
        split: name of the images.
        fitted_on: dictionary from method to the name of the images that it was fitted on; other methods are not fitted.

    Returns:
        Dictionary from method to what `kept_operating_points` returns.
    """
    positive = positive_class(classes)
    column = classes.index(positive)
    return {
        name: kept_operating_points(labels[:, column] == 1, probabilities[:, column], split=split, class_name=positive)
        for name, probabilities in methods.items()
        if fitted_on.get(name) != split
    }
