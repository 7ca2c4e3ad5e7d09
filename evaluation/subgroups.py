"""Metrics of subgroups of the images, by age, sex or any other column."""

from itertools import compress, pairwise

import numpy as np

from evaluation.bootstrap import measure

UNKNOWN = ("", "nan", "na", "n/a", "none", "unknown")
FEWEST = 5  # a column with fewer distinct numbers is treated as texts


def subgroups(column, texts, edges=()):
    """Divide images into subgroups.

    Args:
        column: name of the column.
        texts: sequence of texts, one for each image.
        edges: limits of the subgroups, for a column of numbers. Without them, the limits are the quartiles if there are
            at least `FEWEST` distinct numbers; otherwise each text or number is a subgroup.

    Returns:
        Dictionary from the name of each subgroup that has an image to a boolean array (images,). Images without a value
        form the subgroup "unknown".

    Raises:
        ValueError: if there are edges, and a text is no number.
    """
    texts = np.array([text.strip().lower() for text in texts], object)
    unknown = np.isin(texts, UNKNOWN)
    numbers = np.full(len(texts), np.nan)
    try:
        numbers[~unknown] = [float(text.replace(",", ".")) for text in texts[~unknown]]
    except ValueError:
        if edges:
            raise
    if not edges and len(np.unique(numbers[~np.isnan(numbers)])) >= FEWEST:
        edges = np.unique(np.nanquantile(numbers, (0.25, 0.5, 0.75)))
    if len(edges):
        ends = [-np.inf, *sorted(edges), np.inf]
        groups = {}
        for low, high in pairwise(ends):
            below = "" if high == np.inf else f" < {high:.15g}"
            name = f"{low:.15g} <= {column}{below}" if low > -np.inf else f"{column}{below}"
            groups[name] = (numbers >= low) & (numbers < high)
    else:
        groups = {text: texts == text for text in sorted(set(texts[~unknown]))}
    return {name: rows for name, rows in (groups | {"unknown": unknown}).items() if rows.any()}


def measure_subgroups(labels, methods, members, repetitions=1000, seed=0, *, classes, groups=None):
    """Measure subgroups: dictionary from the name of each to what `evaluation.bootstrap.measure` returns.

    Args:
        labels, methods, repetitions, seed, classes, groups: see `evaluation.bootstrap.measure`.
        members: dictionary from name to boolean array (images,); see `subgroups`.
    """
    return {
        name: measure(
            labels[rows],
            {method: scores[rows] for method, scores in methods.items()},
            None,
            repetitions,
            seed,
            classes=classes,
            groups=groups and list(compress(groups, rows)),
        )
        for name, rows in members.items()
    }
