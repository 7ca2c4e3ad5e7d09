"""Confidence intervals by bootstrap over images.

An image is drawn with replacement, within its class, so that every resample has the classes of the whole; an interval
runs from the 2.5th to the 97.5th percentile of a figure over the resamples (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 13). It tells how much hangs on the choice of images, and nothing of luck in the training.

A thousand resamples by scikit-learn would take minutes. Here a resample is a row of counts, how often each image is
drawn, and a figure of all resamples is a few products of matrices; the tests hold these figures to `diagnosis_metrics`
of the drawn images.
"""

from functools import partial
from itertools import chain

import numpy as np

from evaluation.metrics import SENSITIVITIES, compose, diagnosis_metrics

PERCENTILES = (2.5, 97.5)
GRID = np.linspace(0, 1, 101)
# Counts that are drawn and measured at once, of as many resamples: all of them would be resamples times images. A block
# has a few resamples all the same, as the images are ranked once for each block.
BLOCK = 2**18
FEWEST = 8


def measure(labels, methods, reference=None, repetitions=1000, seed=0):
    """Figures of several methods on the same images, with 95 % intervals, and their differences from one of them.

    All methods are measured on the same resamples, so that the differences are paired.

    Args:
        labels: one-hot array (images, 3).
        methods: dictionary from method name to probabilities (images, 3), or (images, 2); see `diagnosis_metrics`.
        reference: name of the method that the others are compared with, or None.
        repetitions: resamples.
        seed: seed of the draws.

    Returns:
        `{"images": n, "methods": {name: figures}, "intervals": {name: {figure: [low, high]}}, "reference": reference,
        "differences": {name: {figure: {"difference": method minus reference, "interval": [low, high]}}}}`, where
        figures are those of `diagnosis_metrics`. None stands for what is not defined; a resample in which a figure is
        not defined is left out of its interval. The calibration error has no interval: images drawn twice agree with
        themselves, so that its resamples lie above it, and a percentile interval need not hold it.
    """
    figures = {name: diagnosis_metrics(labels, probabilities) for name, probabilities in methods.items()}
    blocks = [
        {name: resampled_metrics(labels, probabilities, counts) for name, probabilities in methods.items()}
        for counts in draws(labels.argmax(axis=1), repetitions, seed)
    ]
    samples = {
        name: {figure: np.concatenate([block[name][figure] for block in blocks]) for figure in blocks[0][name]}
        for name in methods
    }
    intervals = {name: {figure: interval(values) for figure, values in samples[name].items()} for name in methods}
    differences = {}
    for name in methods if reference is not None else ():
        if name != reference:
            pairs = {figure: (value, figures[reference][figure]) for figure, value in figures[name].items()}
            differences[name] = {
                figure: {
                    "difference": None if None in pair else pair[0] - pair[1],
                    "interval": interval(samples[name][figure] - samples[reference][figure]),
                }
                for figure, pair in pairs.items()
            }
    return {
        "images": len(labels),
        "methods": figures,
        "intervals": intervals,
        "reference": reference,
        "differences": differences,
    }


def mean_intervals(figures, repetitions=1000, seed=0):
    """Intervals of means over images.

    Args:
        figures: list of dictionaries from figure to float, one for each image.
        repetitions, seed: see `measure`.

    Returns:
        Dictionary from figure to [low, high].
    """
    values = np.array([list(image.values()) for image in figures])
    blocks = draws(np.zeros(len(figures)), repetitions, seed)
    means = np.concatenate([counts @ values / len(figures) for counts in blocks])
    return {name: interval(means[:, k]) for k, name in enumerate(figures[0])}


def draws(strata, repetitions, seed):
    """How often each image is drawn in each resample, with replacement within its stratum.

    Args:
        strata: integer array (images,).

    Yields:
        Arrays (resamples, images), float64, of `repetitions` resamples in all, so many at a time that memory does not
        grow with them; in each row the counts of a stratum sum to its images.
    """
    generator = np.random.default_rng(seed)
    members = [np.nonzero(strata == stratum)[0] for stratum in np.unique(strata)]
    rows = max(FEWEST, BLOCK // len(strata))
    for start in range(0, repetitions, rows):
        counts = np.empty((min(rows, repetitions - start), len(strata)))
        for stratum in members:
            shares = np.full(len(stratum), 1 / len(stratum))
            counts[:, stratum] = generator.multinomial(len(stratum), shares, len(counts))
        yield counts


def interval(values):
    """The percentiles of the values that are not NaN as a list of two floats; None if all are."""
    defined = values[~np.isnan(values)]
    return np.percentile(defined, PERCENTILES).tolist() if len(defined) else None


def resampled_metrics(labels, probabilities, counts):
    """The figures of `diagnosis_metrics` in each resample.

    Args:
        labels: one-hot array (images, 3).
        probabilities: array (images, 3) or (images, 2).
        counts: array (resamples, images), see `draws`.

    Returns:
        Dictionary from figure to array (resamples,), NaN where it is not defined and for the calibration error. The
        specificity at a sensitivity is the highest of all thresholds that reach it; the challenge's rule, in
        `evaluation.metrics`, can miss that by a step where several images share a score.
    """
    measures = [partial(measure, counts=counts) for measure in (binary_metrics, ranking_metrics)]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: not defined
        figures = compose(labels, probabilities, *measures)
    return {name: np.broadcast_to(values, len(counts)) for name, values in figures.items()}


def binary_metrics(truth, answer, counts):
    """Those of `evaluation.metrics` in each resample."""
    hits, positive, answered = counts @ (truth & answer), counts @ truth, counts @ answer
    return {
        "accuracy": counts @ (truth == answer) / counts.sum(axis=1),
        "sensitivity": hits / positive,
        "specificity": counts @ ~(truth | answer) / (counts @ ~truth),
        "precision": hits / answered,
        "f1": 2 * hits / (positive + answered),
    }


def ranking_metrics(truth, scores, counts):
    """Those of `evaluation.metrics` in each resample."""
    true_positive, false_positive = operating_points(truth, scores, counts)
    sensitivity, specificity = true_positive / true_positive[:, -1:], 1 - false_positive / false_positive[:, -1:]
    precision = np.nan_to_num(true_positive / (true_positive + false_positive))
    defined = truth.any() and not truth.all()
    figures = {
        "auc": np.trapezoid(sensitivity, 1 - specificity),
        "average_precision": (np.diff(sensitivity) * precision[:, 1:]).sum(axis=1),
    }
    for s in SENSITIVITIES:
        figures[f"specificity_at_{100 * s:.0f}"] = np.where(sensitivity >= s, specificity, 0).max(axis=1)
    return {name: values if defined else np.full(len(counts), np.nan) for name, values in figures.items()}


def operating_points(truth, scores, counts):
    """True and false positives at every threshold in each resample.

    Args:
        truth: boolean array (images,).
        scores: array (images,), yes from the threshold on.
        counts: array (resamples, images).

    Returns:
        Two arrays (resamples, thresholds), the threshold falling from above the highest score to the lowest.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.nonzero(np.diff(scores[order]))[0], len(scores) - 1)  # images of one score are answered alike
    ranked, truth = np.take(counts, order, axis=1), truth[order]
    return [
        np.pad(np.take(np.cumsum(ranked * positive, axis=1), last, axis=1), ((0, 0), (1, 0)))
        for positive in (truth, ~truth)
    ]


def curve_bands(labels, scores, kind, repetitions=1000, seed=0):
    """A curve and its 95 % confidence band, point by point on a fixed grid; for drawing.

    Args:
        labels: array (images,), non-zero or True for the positive images; there must be both.
        scores: array (images,).
        kind: "roc": sensitivity over 1 - specificity, the points joined by lines; or "precision_recall": precision at
            the first threshold that reaches a recall, as lines between such points promise too much (Davis and
            Goadrich, ICML 2006).
        repetitions, seed: see `measure`; images are drawn within the two classes.

    Returns:
        Four arrays (101,): the grid from 0 to 1, the curve of all images, and the 2.5th and 97.5th percentile.
    """
    truth = np.asarray(labels).astype(bool)
    curves = []
    for counts in chain([np.ones((1, len(truth)))], draws(truth, repetitions, seed)):
        for true_positive, false_positive in zip(*operating_points(truth, np.asarray(scores), counts), strict=True):
            recall = true_positive / true_positive[-1]
            if kind == "roc":
                curves.append(np.interp(GRID, false_positive / false_positive[-1], recall))
            else:
                answered = true_positive + false_positive
                precision = np.divide(true_positive, answered, out=np.ones_like(answered), where=answered > 0)
                curves.append(precision[np.searchsorted(recall, GRID)])
    low, high = np.percentile(curves[1:], PERCENTILES, axis=0)
    return GRID, curves[0], low, high
