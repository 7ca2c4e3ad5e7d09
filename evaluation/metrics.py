"""Figures of merit of masks and diagnoses."""

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from data.isic2017 import CLASSES, TASKS

# Sensitivities at which the challenge reports the specificity.
SENSITIVITIES = (0.82, 0.89, 0.95)
CALIBRATION_BINS = 15
# What only a distribution over the three classes has.
THREE_WAY = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "calibration_error", "accuracy_one_vs_rest")


def mask_metrics(mask, truth):
    """Agreement of a mask with the ground truth, pixel by pixel, as the challenge's scorer has it.

    Source: `SegmentationScore` of https://github.com/ImageMarkup/isic-challenge-scoring.

    Args:
        mask, truth: arrays (height, width), non-zero in the lesion.

    Returns:
        Dictionary of floats: jaccard, threshold_jaccard (0 where the Jaccard index is below 0.65), dice, accuracy,
        sensitivity and specificity. A share of no pixels at all is 1.
    """
    mask, truth = np.asarray(mask) > 0, np.asarray(truth) > 0
    both, masked, lesion = (np.count_nonzero(pixels) for pixels in (mask & truth, mask, truth))
    either, skin = masked + lesion - both, truth.size - lesion
    jaccard = both / either if either else 1.0
    return {
        "jaccard": jaccard,
        "threshold_jaccard": jaccard if jaccard >= 0.65 else 0.0,
        "dice": 2 * both / (masked + lesion) if either else 1.0,
        "accuracy": 1 - (either - both) / truth.size,
        "sensitivity": both / lesion if lesion else 1.0,
        "specificity": (truth.size - either) / skin if skin else 1.0,
    }


def mean_mask_metrics(metrics):
    """Means over images of what `mask_metrics` returns for each."""
    return {name: float(np.mean([figures[name] for figures in metrics])) for name in metrics[0]}


def areas_under_curve(labels, probabilities):
    """Area under the ROC curve of each class against the rest.

    Args:
        labels: one-hot array (images, 3).
        probabilities: array (images, 3).

    Returns:
        Dictionary from class name to area; None where the images are all of that class or none is.
    """
    return {
        name: float(roc_auc_score(labels[:, k], probabilities[:, k])) if 0 < labels[:, k].mean() < 1 else None
        for k, name in enumerate(CLASSES)
    }


def summary(labels, probabilities):
    """One line: three-way accuracy by argmax and the area under the ROC curve of each class."""
    accuracy = accuracy_score(labels.argmax(axis=1), probabilities.argmax(axis=1))
    areas = areas_under_curve(labels, probabilities)
    listed = ", ".join(f"{name} {area:.3f}" for name, area in areas.items() if area is not None)
    return f"accuracy {accuracy:.3f}, AUC {listed} ({len(labels)} images)"


def diagnosis_metrics(labels, probabilities):
    """Figures of one method on one split.

    Decisions are made by two rules, side by side. `argmax`: the most probable of the three classes; a task is answered
    yes if that is its class. `threshold`: the challenge's rule, a task is answered yes above a probability of 0.5.

    Two columns are two independent scores, as the challenge took them: they make no distribution over three classes, so
    that whatever needs one is None.

    Args:
        labels: one-hot array (images, 3), columns in the order of `CLASSES`.
        probabilities: array (images, 3), or (images, 2) of scores between 0 and 1 for the two tasks alone.

    Returns:
        Dictionary of floats; None where a figure is not defined (an area without positive images, a precision without
        positive answers), or a mean where one of its parts is not.

        accuracy: of the three-way answer by argmax.
        balanced_accuracy, macro_f1, macro_auc: means of the three classes' sensitivities and F1 by argmax, and areas.
        calibration_error: see `calibration_error`.
        accuracy_two_tasks, accuracy_two_tasks_argmax: mean of the two tasks' accuracies, by threshold and by argmax.
        accuracy_one_vs_rest: mean of the three one-vs-rest accuracies, by argmax. A wrong image is wrong for two
        classes of three, so it is 1 - 2/3 (1 - accuracy).

        For each task, and for `mean`, the mean of the two: <task>.auc; .average_precision; .specificity_at_82, _89 and
        _95 % sensitivity; .threshold. and .argmax. with accuracy, sensitivity, specificity, precision and f1.
    """
    figures = compose(labels, probabilities, binary_metrics, ranking_metrics)
    if probabilities.shape[1] == len(CLASSES):
        figures["calibration_error"] = calibration_error(labels, probabilities)
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}


def compose(labels, probabilities, binary_metrics, ranking_metrics):
    """The figures of `diagnosis_metrics`, but for the calibration error, from those of yes/no questions.

    These come as floats, NaN for undefined, or as arrays: `evaluation.bootstrap` measures many resamples at once.
    """
    truth = labels.astype(bool)
    ranked = [ranking_metrics(truth[:, k], scores) for k, scores in enumerate(probabilities.T)]
    by_threshold = [binary_metrics(truth[:, k], probabilities[:, k] > 0.5) for k in range(len(TASKS))]
    by_argmax = [dict.fromkeys(figures, np.nan) for figures in by_threshold]
    three_way = dict.fromkeys(THREE_WAY, np.nan)
    if probabilities.shape[1] == len(CLASSES):
        chosen = np.eye(len(CLASSES), dtype=bool)[probabilities.argmax(axis=1)]
        by_argmax = [binary_metrics(truth[:, k], chosen[:, k]) for k in range(len(CLASSES))]
        right = (truth & chosen).any(axis=1)
        three_way = {
            "accuracy": binary_metrics(np.ones_like(right), right)["accuracy"],
            "balanced_accuracy": np.mean([figures["sensitivity"] for figures in by_argmax], axis=0),
            "macro_f1": np.mean([figures["f1"] for figures in by_argmax], axis=0),
            "macro_auc": np.mean([figures["auc"] for figures in ranked], axis=0),
            "calibration_error": np.nan,
            "accuracy_one_vs_rest": np.mean([figures["accuracy"] for figures in by_argmax], axis=0),
        }
    tasks = {
        task: {
            **ranked[k],
            **{f"threshold.{name}": value for name, value in by_threshold[k].items()},
            **{f"argmax.{name}": value for name, value in by_argmax[k].items()},
        }
        for k, task in enumerate(TASKS)
    }
    tasks["mean"] = {name: np.mean([tasks[task][name] for task in TASKS], axis=0) for name in tasks[TASKS[0]]}
    return {
        **three_way,
        "accuracy_two_tasks": tasks["mean"]["threshold.accuracy"],
        "accuracy_two_tasks_argmax": tasks["mean"]["argmax.accuracy"],
        **{f"{task}.{name}": value for task, figures in tasks.items() for name, value in figures.items()},
    }


def binary_metrics(truth, answer):
    """Accuracy, sensitivity, specificity, precision and F1 of yes/no answers; NaN where one is not defined."""
    return {
        "accuracy": accuracy_score(truth, answer),
        "sensitivity": recall_score(truth, answer, zero_division=np.nan),
        "specificity": recall_score(truth, answer, pos_label=False, zero_division=np.nan),
        "precision": precision_score(truth, answer, zero_division=np.nan),
        "f1": f1_score(truth, answer, zero_division=np.nan),
    }


def ranking_metrics(truth, scores):
    """Area under the ROC curve, average precision, and specificity at three sensitivities, of scores for yes.

    The specificity is that of the first point of the ROC curve to reach the sensitivity, as in the scorer of 2017:
    `computeSPECMetrics` of Python/scoreCommon.py, in the history of
    https://github.com/ImageMarkup/isic-challenge-scoring.

    Returns:
        Dictionary of floats; all NaN where the truth is yes everywhere or nowhere.
    """
    names = ["auc", "average_precision", *(f"specificity_at_{100 * s:.0f}" for s in SENSITIVITIES)]
    if truth.all() or not truth.any():
        return dict.fromkeys(names, np.nan)
    false_positive, true_positive, _ = roc_curve(truth, scores)
    specificities = [1 - false_positive[np.argmax(true_positive >= s)] for s in SENSITIVITIES]
    figures = (roc_auc_score(truth, scores), average_precision_score(truth, scores), *specificities)
    return dict(zip(names, figures, strict=True))


def calibration_error(labels, probabilities):
    """Expected calibration error of the most probable class's probability, in 15 equal bins.

    The mean distance between a bin's accuracy and its mean probability, weighed by the bin's images. Source: Guo et
    al., On Calibration of Modern Neural Networks, ICML 2017, equation 3, https://arxiv.org/abs/1706.04599.

    Args:
        labels: one-hot array (images, 3).
        probabilities: array (images, 3).

    Returns:
        Float between 0 and 1.
    """
    confidence = probabilities.max(axis=1)
    right = labels.argmax(axis=1) == probabilities.argmax(axis=1)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    gaps = np.bincount(np.digitize(confidence, edges, right=True), right - confidence)  # a bin's images times its gap
    return np.abs(gaps).sum() / len(labels)
