"""Figures of merit of masks and diagnoses."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from data.isic2017 import CLASSES

# The challenge asks two questions: melanoma or not, and seborrheic keratosis or not.
TASKS = CLASSES[:2]


def jaccard_and_dice(mask, truth):
    """Overlap of two masks.

    Args:
        mask, truth: arrays (height, width), non-zero in the lesion.

    Returns:
        (Jaccard index, Dice coefficient); both 1 where both masks are empty.
    """
    mask, truth = np.asarray(mask) > 0, np.asarray(truth) > 0
    both, total = np.count_nonzero(mask & truth), np.count_nonzero(mask) + np.count_nonzero(truth)
    return (both / (total - both), 2 * both / total) if total else (1.0, 1.0)


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
    yes if that is its class. `threshold`: the challenge's rule, a task is answered yes from a probability of 0.5.

    Args:
        labels: one-hot array (images, 3), columns in the order of `CLASSES`.
        probabilities: array (images, 3).

    Returns:
        `{"images": n, "accuracy": three-way accuracy by argmax, "melanoma": {"auc": ..., "argmax": {"accuracy": ...,
        "sensitivity": ..., "specificity": ..., "precision": ..., "f1": ...}, "threshold": {...}},
        "seborrheic_keratosis": {...}}`, each task against the rest. A figure is None where it is not defined (a
        sensitivity without positive images, a precision without positive answers).
    """
    truth, chosen = labels.argmax(axis=1), probabilities.argmax(axis=1)
    areas = areas_under_curve(labels, probabilities)
    figures = {"images": len(labels), "accuracy": float(accuracy_score(truth, chosen))}
    for k, task in enumerate(TASKS):
        figures[task] = {
            "auc": areas[task],
            "argmax": binary_metrics(truth == k, chosen == k),
            "threshold": binary_metrics(truth == k, probabilities[:, k] >= 0.5),
        }
    return figures


def binary_metrics(truth, answer):
    """Accuracy, sensitivity, specificity, precision and F1 of yes/no answers; None where one is not defined."""
    figures = {
        "accuracy": accuracy_score(truth, answer),
        "sensitivity": recall_score(truth, answer, zero_division=np.nan),
        "specificity": recall_score(truth, answer, pos_label=False, zero_division=np.nan),
        "precision": precision_score(truth, answer, zero_division=np.nan),
        "f1": f1_score(truth, answer, zero_division=np.nan),
    }
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}


def metrics_tables(metrics):
    """Write figures as Markdown.

    Args:
        metrics: dictionary from split to a dictionary from method name to what `diagnosis_metrics` returns.

    Returns:
        For each split a table of accuracies and areas, and one of the two rules' figures for each task.
    """

    def cell(value):
        return "-" if value is None else f"{value:.3f}"

    def table(header, rows):
        lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    parts = []
    for split, methods in metrics.items():
        images = next(iter(methods.values()))["images"]
        rows = []
        for name, figures in methods.items():
            areas = [figures[task]["auc"] for task in TASKS]
            mean = None if None in areas else float(np.mean(areas))
            rows.append([name, cell(figures["accuracy"]), *map(cell, areas), cell(mean)])
        header = ["method", "three-way accuracy", *(f"AUC {task}" for task in TASKS), "mean AUC"]
        parts.append(f"## {split} ({images} images)\n\n{table(header, rows)}")
        for task in TASKS:
            measures = next(iter(methods.values()))[task]["argmax"]
            rows = []
            for name, figures in methods.items():
                argmax, threshold = figures[task]["argmax"], figures[task]["threshold"]
                rows.append([name, *(f"{cell(argmax[m])} / {cell(threshold[m])}" for m in measures)])
            title = f"### {split}: {task} against the rest (argmax / probability of 0.5)"
            parts.append(f"{title}\n\n{table(['method', *measures], rows)}")
    return "\n".join(parts)
