"""The methods that a run compares: single networks, combinations of them, and baselines."""

from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import measure
from evaluation.metrics import diagnosis_metrics


@dataclass(frozen=True)
class Method:
    """How tables, pictures and sentences present a method."""

    note: str
    """What it is, for tables."""
    phrase: str
    """Its name in a sentence."""
    color: str | None = None
    """Colour of its curve, from the palette of Okabe and Ito for colour-blind readers. None draws a thin curve."""


# All methods except the single networks.
METHODS = {
    "mean": Method("plain mean of the networks", "the mean of the networks", "#0072b2"),
    "stacking": Method("logistic regression on the networks", "the stacking", "#009e73"),
    "temperature": Method("the mean, temperature-scaled", "the temperature-scaled mean"),
    "vote": Method("the published voting network", "the vote", "#d55e00"),
    "vote_on_training": Method("voting network fitted on training", "the vote fitted on training"),
    "vote_on_validation": Method("voting network fitted on validation", "the vote fitted on validation"),
    "vote_oof": Method("voting network fitted out of fold", "the vote fitted out of fold", "#cc79a7"),
    "mean_folds": Method("plain mean of all fold networks", "the mean of all fold networks"),
    "prior": Method("class frequencies alone", "the class frequencies"),
}


def best_network(labels, networks, classes):
    """The network with the largest mean AUC of the tasks.

    Args:
        labels: one-hot array (images, classes).
        networks: dictionary from name to probabilities (images, classes).
        classes: names of the classes.

    Returns:
        Its name; None if the AUC is not defined.
    """
    areas = {name: diagnosis_metrics(labels, scores, classes)["mean.auc"] for name, scores in networks.items()}
    return None if None in areas.values() else max(areas, key=areas.get)


def compared_methods(methods, *, networks, best, frequencies):
    """Put the methods in the order of the tables, and add the baselines.

    Args:
        methods: dictionary from method to probabilities (images, classes).
        networks: names of the single networks.
        best: name of the best of them, see `best_network`; None for none.
        frequencies: array (classes,), class frequencies of the training split. The baseline "prior" predicts them for
            every image.

    Returns:
        Dictionary from method to probabilities (images, classes).
    """
    return {
        **{name: methods[name] for name in networks},
        **({f"best single ({best})": methods[best]} if best else {}),
        **methods,
        "prior": np.tile(frequencies, (len(methods[networks[0]]), 1)),
    }


def measure_split(labels, methods, *, by_seed, fitted_on, seed, classes, groups=None):
    """Measure all methods on a split, and compare them with the vote.

    Args:
        labels: one-hot array (images, classes).
        methods: dictionary from method to probabilities (images, classes), `vote` among them.
        classes: names of the classes.
        by_seed: dictionary from vote to a list of probabilities (images, classes), one array for each of its seeds.
        fitted_on: dictionary from method to the predictions that it was fitted on.
        seed: seed of the bootstrap.
        groups: see `evaluation.bootstrap.measure`.

    Returns:
        What `evaluation.bootstrap.measure` returns; `fitted_on`; and `seeds`, from vote to what `spread_over_seeds`
        returns.
    """
    return {
        **measure(labels, methods, reference="vote", seed=seed, classes=classes, groups=groups),
        "fitted_on": fitted_on,
        "seeds": {vote: spread_over_seeds(labels, predictions, classes) for vote, predictions in by_seed.items()},
    }


def spread_over_seeds(labels, predictions, classes):
    """Mean and standard deviation of a vote's metrics over its seeds.

    Args:
        labels: one-hot array (images, classes).
        predictions: list of probabilities (images, classes), one array for each seed.
        classes: names of the classes.

    Returns:
        Dictionary of `seeds`, their number, and from each metric to [mean, standard deviation of the sample]. The
        standard deviation of one seed is None. A metric that is not defined is left out.
    """
    figures = [diagnosis_metrics(labels, probabilities, classes) for probabilities in predictions]
    spread = {"seeds": len(predictions)}
    for name in ("accuracy", "mean.auc"):
        values = [metrics[name] for metrics in figures]
        if None not in values:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            spread[name] = [float(np.mean(values)), deviation]
    return spread


def unseen_methods(methods, fitted_on, split):
    """Dictionary of the methods that were not fitted on a split. The metrics of the others would be too good there."""
    return {name: probabilities for name, probabilities in methods.items() if fitted_on.get(name) != split}
