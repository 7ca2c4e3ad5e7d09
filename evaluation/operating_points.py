"""Operating points: the probability from which an image is suspect, for a wanted sensitivity."""

import numpy as np

from evaluation.metrics import SENSITIVITIES


def choose_operating_points(truth, scores, sensitivities=SENSITIVITIES):
    """Choose thresholds on images with known labels; a score from the threshold on is a yes.

    Each threshold is the largest that reaches its sensitivity. It lies halfway to the next lower score, so that
    rounding moves no image across it.

    Args:
        truth: boolean array (images,).
        scores: array (images,), 0 to 1.
        sensitivities: the wanted shares of the positive images, above 0 and at most 1.

    Returns:
        List of a dictionary for each sensitivity: it, the `threshold`, and the `reached` sensitivity and the
        `specificity` on these images (None without negative images). An empty list without positive images.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, float)
    positive, points = np.sort(scores[truth])[::-1], []
    for sensitivity in sensitivities if len(positive) else ():
        lowest = positive[int(np.ceil(sensitivity * len(positive) - 1e-9)) - 1]
        threshold = float((lowest + scores[scores < lowest].max(initial=0)) / 2)
        answers = scores >= threshold
        points.append(
            {
                "sensitivity": sensitivity,
                "threshold": threshold,
                "reached": float(answers[truth].mean()),
                "specificity": None if truth.all() else float((~answers[~truth]).mean()),
            }
        )
    return points


def method_operating_points(truth, scores, *, split, class_name):
    """The operating points of one method, as they are kept with a run.

    Args:
        truth, scores: see `choose_operating_points`.
        split: name of the images that they were chosen on.
        class_name: the class that they are about.

    Returns:
        Dictionary of `class`, `split`, the numbers of `images` and `positive` ones, and `points`.
    """
    return {
        "class": class_name,
        "split": split,
        "images": len(truth),
        "positive": int(np.sum(truth)),
        "points": choose_operating_points(truth, scores),
    }
