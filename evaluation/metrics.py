"""Metrics of masks and diagnoses.

Every metric of diagnoses is computed for many resamples of the images at once. `weights` is an array (resamples,
images), float64: how often each resample holds each image. The metric is an array (resamples,), NaN where it is not
defined. If all weights of a resample are 1, its metrics are those of the images.
"""

import numpy as np

from data.classes import ISIC_2017, tasks_of

# Sensitivities at which the challenge reports the specificity.
SENSITIVITIES = (0.82, 0.89, 0.95)
CALIBRATION_BINS = 15
# Metrics that need a distribution over all classes.
MULTICLASS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "calibration_error", "accuracy_one_vs_rest")


def mask_metrics(mask, truth):
    """Agreement of a mask with the ground truth, pixel by pixel, as the challenge's scorer computes it.

    Source: `SegmentationScore` of https://github.com/ImageMarkup/isic-challenge-scoring.

    Args:
        mask, truth: arrays (height, width), non-zero in the lesion.

    Returns:
        Dictionary of floats: jaccard, threshold_jaccard (0 where the Jaccard index is below 0.65), dice, accuracy,
        sensitivity and specificity. A ratio whose denominator has no pixels is 1.
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
    """Means of the metrics of `mask_metrics` over images."""
    return {name: float(np.mean([figures[name] for figures in metrics])) for name in metrics[0]}


def summary(labels, probabilities, classes):
    """One line of text: accuracy by argmax, and the area under the ROC curve of each class where it is defined."""
    ones, truth = np.ones((1, len(labels))), labels.astype(bool)
    areas = {name: ranking_metrics(truth[:, k], probabilities[:, k], ones)["auc"][0] for k, name in enumerate(classes)}
    listed = ", ".join(f"{name} {area:.3f}" for name, area in areas.items() if not np.isnan(area))
    accuracy = diagnosis_metrics(labels, probabilities, classes)["accuracy"]
    return f"accuracy {accuracy:.3f}, AUC {listed} ({len(labels)} images)"


def diagnosis_metrics(labels, probabilities, classes):
    """Metrics of one method on one split.

    The tasks are those of `data.classes.tasks_of`. Each is one class against the rest. Two rules turn probabilities
    into decisions, and both are reported. `argmax`: the answer is the most probable class, and a task is answered yes
    if the answer is its class. `threshold`, the challenge's rule: a task is answered yes if its probability is above
    0.5.

    If there are fewer columns than classes, they are independent scores of the tasks, as in the challenge. They are not
    a distribution, so every metric that needs one is None.

    Args:
        labels: one-hot array (images, classes).
        probabilities: array (images, classes), or (images, tasks) of scores between 0 and 1 for the tasks alone.
        classes: names of the columns.

    Returns:
        Dictionary of floats; None where a metric is not defined (an area without positive images, a precision without
        positive answers). A mean is None if one of its parts is None.

        accuracy: of the answer by argmax.
        balanced_accuracy, macro_f1, macro_auc: means over all classes of the sensitivity by argmax, the F1 by argmax,
        and the area under the ROC curve.
        calibration_error: see `calibration_error`.
        accuracy_one_vs_rest: mean of the one-vs-rest accuracies, by argmax. A wrong answer is wrong for two classes, so
        with three classes this is 1 - 2/3 (1 - accuracy).
        accuracy_two_tasks, accuracy_two_tasks_argmax: mean of the two tasks' accuracies, by threshold and by argmax;
        only for the classes of ISIC 2017.

        For each task, and for `mean`, the mean over the tasks: <task>.auc; .average_precision; .specificity_at_82, _89
        and _95 % sensitivity; .threshold. and .argmax. with accuracy, sensitivity, specificity, precision and f1.
    """
    figures = resampled_metrics(labels, probabilities, np.ones((1, len(labels))), classes)
    return {name: or_none(values[0]) for name, values in figures.items()}


def or_none(value):
    """A float; None in place of NaN."""
    return None if np.isnan(value) else float(value)


def resampled_metrics(labels, probabilities, weights, classes):
    """Dictionary from each metric of `diagnosis_metrics` to its values (resamples,)."""
    truth, undefined, names = labels.astype(bool), np.full(len(weights), np.nan), tasks_of(classes)
    ranked = [ranking_metrics(truth[:, k], scores, weights) for k, scores in enumerate(probabilities.T)]
    by_threshold = [binary_metrics(truth[:, k], probabilities[:, k] > 0.5, weights) for k in range(len(names))]
    by_argmax = [dict.fromkeys(figures, undefined) for figures in by_threshold]
    multiclass = dict.fromkeys(MULTICLASS, undefined)
    if probabilities.shape[1] == len(classes):
        answers = np.eye(len(classes), dtype=bool)[probabilities.argmax(axis=1)]
        by_argmax = [binary_metrics(truth[:, k], answers[:, k], weights) for k in range(len(classes))]
        multiclass = {
            "accuracy": weights @ (truth & answers).any(axis=1) / weights.sum(axis=1),
            "balanced_accuracy": np.mean([figures["sensitivity"] for figures in by_argmax], axis=0),
            "macro_f1": np.mean([figures["f1"] for figures in by_argmax], axis=0),
            "macro_auc": np.mean([figures["auc"] for figures in ranked], axis=0),
            "calibration_error": calibration_error(labels, probabilities, weights),
            "accuracy_one_vs_rest": np.mean([figures["accuracy"] for figures in by_argmax], axis=0),
        }
    tasks = {
        task: {
            **ranked[k],
            **{f"threshold.{name}": values for name, values in by_threshold[k].items()},
            **{f"argmax.{name}": values for name, values in by_argmax[k].items()},
        }
        for k, task in enumerate(names)
    }
    tasks["mean"] = {name: np.mean([tasks[task][name] for task in names], axis=0) for name in tasks[names[0]]}
    readings = {"accuracy_two_tasks": "threshold", "accuracy_two_tasks_argmax": "argmax"}
    return {
        **multiclass,
        **{name: tasks["mean"][f"{rule}.accuracy"] for name, rule in readings.items() if tuple(classes) == ISIC_2017},
        **{f"{task}.{name}": values for task, figures in tasks.items() for name, values in figures.items()},
    }


def binary_metrics(truth, answers, weights):
    """Accuracy, sensitivity, specificity, precision and F1 of yes/no answers; both are boolean arrays (images,)."""
    hits, positive, answered = weights @ (truth & answers), weights @ truth, weights @ answers
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: not defined
        return {
            "accuracy": weights @ (truth == answers) / weights.sum(axis=1),
            "sensitivity": hits / positive,
            "specificity": weights @ ~(truth | answers) / (weights @ ~truth),
            "precision": hits / answered,
            "f1": 2 * hits / (positive + answered),
        }


def ranking_metrics(truth, scores, weights):
    """Area under the ROC curve, average precision, and specificity at three sensitivities, of scores for yes.

    The specificity is that of the first corner of the ROC curve that reaches the sensitivity, as in the scorer of 2017:
    `computeSPECMetrics` of Python/scoreCommon.py, in the history of
    https://github.com/ImageMarkup/isic-challenge-scoring. If positive and negative images share scores, the curve may
    reach the sensitivity between two corners. (With such ties, weights of 0 may leave a corner where there is none.
    This changes one in a thousand figures of a bootstrap.)

    All metrics are NaN if no image, or every image, is positive.
    """
    true_positive, false_positive = count_positives(truth, scores, weights)
    recall, precision = curve_points("precision_recall", true_positive, false_positive)
    with np.errstate(invalid="ignore"):
        specificity = 1 - false_positive / false_positive[:, -1:]
    area = np.trapezoid(recall, 1 - specificity)
    figures = {"auc": area, "average_precision": (np.diff(recall) * precision[:, 1:]).sum(axis=1)}
    corner = np.ones_like(recall, bool)
    turns = (np.diff(true_positive, 2) != 0) | (np.diff(false_positive, 2) != 0)
    corner[:, 2:-1] = turns[:, 1:]
    for sensitivity in SENSITIVITIES:
        reached = np.argmax(corner & (recall >= sensitivity), axis=1)
        figures[f"specificity_at_{100 * sensitivity:.0f}"] = specificity[np.arange(len(weights)), reached]
    return {name: np.where(np.isnan(area), np.nan, values) for name, values in figures.items()}


def count_positives(truth, scores, weights):
    """Count true and false positives at every threshold. The answer is yes if the score is at least the threshold.

    Returns:
        Two arrays (resamples, thresholds). The thresholds fall from above the highest score to the lowest score.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)  # images of one score share an answer
    ranked, truth = np.take(weights, order, axis=1), truth[order]
    return [
        np.pad(np.take(np.cumsum(ranked * kind, axis=1), last, axis=1), ((0, 0), (1, 0))) for kind in (truth, ~truth)
    ]


def curve_points(kind, true_positive, false_positive):
    """x and y of ROC curves (1 - specificity, sensitivity) or "precision_recall" curves (recall, precision).

    The precision is 1 if no answer is yes.
    """
    with np.errstate(invalid="ignore"):
        recall = true_positive / true_positive[:, -1:]
        if kind == "roc":
            return false_positive / false_positive[:, -1:], recall
    answered = true_positive + false_positive
    return recall, np.divide(true_positive, answered, out=np.ones_like(answered), where=answered > 0)


def calibration_error(labels, probabilities, weights):
    """Expected calibration error of the probability of the most probable class, in 15 equal bins; between 0 and 1.

    It is the mean distance between accuracy and mean probability of a bin, weighted by its number of images. Source:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3, https://arxiv.org/abs/1706.04599.
    """
    confidence, right, bins = calibration_bins(labels, probabilities)
    gaps = np.zeros((len(labels), CALIBRATION_BINS))
    gaps[np.arange(len(labels)), bins] = right - confidence
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def calibration_bins(labels, probabilities):
    """Three arrays (images,): the largest probability, whether its class is right, and its bin, from 0 on."""
    confidence = probabilities.max(axis=1)
    right = labels.argmax(axis=1) == probabilities.argmax(axis=1)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    return confidence, right, np.digitize(confidence, edges[1:-1], right=True)
