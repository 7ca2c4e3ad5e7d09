"""Confidence intervals by bootstrap over images.

A resample draws images with replacement within their class, so that it has as many images of each class as the data.
Images of one lesion or patient are drawn together, if these are known, because they are alike (Field and Welsh,
Bootstrapping clustered data, J. R. Stat. Soc. B 69, 2007): a resample then has as many lesions of each class as the
data. A patient with images of several classes counts for the rarest of them. A 95 % interval runs from the 2.5th to the
97.5th percentile of a metric over the resamples (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
13). It shows how much a metric depends on the choice of images. It does not cover the randomness of training.
"""

from itertools import chain

import numpy as np
import pandas as pd

from evaluation.metrics import count_positives, curve_points, or_none, resampled_metrics

PERCENTILES = (2.5, 97.5)
GRID = np.linspace(0, 1, 101)
# Number of weights in memory at once, because all resamples together may not fit. A block has at least `FEWEST`
# resamples, because the images are sorted once per block.
BLOCK = 2**18
FEWEST = 8


def measure(labels, methods, reference=None, repetitions=1000, seed=0, *, classes, groups=None):
    """Metrics of several methods on the same images and their differences from one method, with 95 % intervals.

    All methods are measured on the same resamples, so that the differences are paired.

    Args:
        labels: one-hot array (images, classes).
        methods: dictionary from method name to probabilities (images, classes), or scores; see `diagnosis_metrics`.
        reference: name of the method that the others are compared with, or None.
        repetitions: resamples.
        seed: seed of the draws.
        classes: names of the classes.
        groups: list of texts (images,), the lesion or patient of each image, "" if it is not known; None for none. If
            all images are of one group, there are no intervals.

    Returns:
        `{"images": n, "classes": classes, "methods": {name: figures}, "intervals": {name: {figure: [low, high]}},
        "reference": reference, "differences": {name: {figure: {"difference": method minus reference, "interval": [low,
        high]}}}}`, where figures are the metrics of `diagnosis_metrics`. A metric that is not defined is None. A
        resample in which a metric is not defined does not count for its interval. The calibration error has no
        interval: a resample holds some images more than once, which raises the error, so the interval might not contain
        the value of the images themselves.
    """
    resamples = chain([np.ones((1, len(labels)))], draws(labels.argmax(axis=1), repetitions, seed, groups))
    blocks = [
        {name: resampled_metrics(labels, probabilities, weights, classes) for name, probabilities in methods.items()}
        for weights in resamples
    ]
    samples = {  # for each metric: first the value of the images, then the values of the resamples
        name: {figure: np.concatenate([block[name][figure] for block in blocks]) for figure in blocks[0][name]}
        for name in methods
    }
    if one_group(groups):
        for values in samples.values():
            for figure in values.values():
                figure[1:] = np.nan
    for values in samples.values():
        values["calibration_error"][1:] = np.nan
    differences = {
        name: {figure: values - samples[reference][figure] for figure, values in samples[name].items()}
        for name in methods
        if reference is not None and name != reference
    }
    return {
        "images": len(labels),
        "classes": list(classes),
        "methods": {name: {f: or_none(values[0]) for f, values in samples[name].items()} for name in methods},
        "intervals": {name: {f: interval(values[1:]) for f, values in samples[name].items()} for name in methods},
        "reference": reference,
        "differences": {
            name: {f: {"difference": or_none(d[0]), "interval": interval(d[1:])} for f, d in figures.items()}
            for name, figures in differences.items()
        },
    }


def mean_intervals(figures, repetitions=1000, seed=0, groups=None):
    """Intervals of means over images.

    Args:
        figures: list of dictionaries from figure to float, one for each image.
        repetitions, seed, groups: see `measure`.

    Returns:
        Dictionary from figure to [low, high], or to None if all images are of one group.
    """
    if one_group(groups):
        return dict.fromkeys(figures[0])
    values = np.array([list(image.values()) for image in figures])
    blocks = draws(np.zeros(len(figures)), repetitions, seed, groups)
    means = np.concatenate([weights @ values / weights.sum(axis=1, keepdims=True) for weights in blocks])
    return {name: interval(means[:, k]) for k, name in enumerate(figures[0])}


def one_group(groups):
    """Whether all images are of one group, so that there is nothing to draw."""
    return bool(groups) and len(set(groups)) == 1 and groups[0] != ""


def draws(strata, repetitions, seed, groups=None):
    """Draw resamples: images with replacement within their stratum, those of one group together.

    Args:
        strata: integer array (images,). A group is in the rarest stratum of its images, so that no stratum is empty.
        groups: see `measure`.

    Yields:
        Arrays (resamples, images), float64: how often each resample holds each image. Together they have `repetitions`
        resamples. They come in blocks, so that memory does not grow with their number.
    """
    generator = np.random.default_rng(seed)
    group_of = np.arange(len(strata))
    if groups:  # an image without a group is one by itself, named by its number
        group_of, _ = pd.factorize(np.array([group or k for k, group in enumerate(groups)], object))
    values, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    rarest_first = np.lexsort((counts[inverse], group_of))
    first = rarest_first[np.unique(group_of[rarest_first], return_index=True)[1]]
    members = [np.nonzero(strata[first] == stratum)[0] for stratum in values if stratum in strata[first]]
    rows = max(FEWEST, BLOCK // len(strata))
    for start in range(0, repetitions, rows):
        weights = np.empty((min(rows, repetitions - start), len(first)))
        for stratum in members:
            shares = np.full(len(stratum), 1 / len(stratum))
            weights[:, stratum] = generator.multinomial(len(stratum), shares, len(weights))
        yield np.take(weights, group_of, axis=1) if len(first) < len(strata) else weights


def interval(values):
    """The percentiles of the values that are not NaN as a list of two floats; None if all are NaN."""
    defined = values[~np.isnan(values)]
    return np.percentile(defined, PERCENTILES).tolist() if len(defined) else None


def curve_bands(labels, scores, kind, repetitions=1000, seed=0, groups=None):
    """Compute a curve and its pointwise 95 % confidence band on a fixed grid, for drawing.

    Args:
        labels: array (images,), non-zero or True for the positive images. There must be positive and negative ones.
        scores: array (images,).
        kind: "roc": sensitivity over 1 - specificity, the points joined by lines; or "precision_recall": precision at
            the first threshold that reaches a recall, because lines between such points are too optimistic (Davis and
            Goadrich, ICML 2006).
        repetitions, seed, groups: see `measure`; images are drawn within positive and negative ones.

    Returns:
        Four arrays (101,): the grid from 0 to 1, the curve of all images, and the 2.5th and 97.5th percentile.
    """
    truth, scores = np.asarray(labels).astype(bool), np.asarray(scores)
    curves = []
    for weights in chain([np.ones((1, len(truth)))], draws(truth, repetitions, seed, groups)):
        for x, y in zip(*curve_points(kind, *count_positives(truth, scores, weights)), strict=True):
            curves.append(np.interp(GRID, x, y) if kind == "roc" else y[np.searchsorted(x, GRID)])
    low, high = np.percentile(curves[1:], PERCENTILES, axis=0)
    return GRID, curves[0], low, high
