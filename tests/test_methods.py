from functools import partial

import numpy as np
import pytest

from data.classes import ISIC_2017
from evaluation import methods as methods_module
from evaluation.methods import METHODS, compared_methods, unseen_methods
from evaluation.tables import mean_and_deviation

best_network = partial(methods_module.best_network, classes=ISIC_2017)
spread_over_seeds = partial(methods_module.spread_over_seeds, classes=ISIC_2017)
LABELS = np.eye(3)[[0, 1, 2, 2, 0, 1, 2, 2]]
RIGHT = 0.1 + 0.7 * LABELS
WRONG = RIGHT[:, [1, 2, 0]]
NOISE = np.random.default_rng(0).dirichlet(np.ones(3), 8)


def test_the_best_network_has_the_largest_mean_auc_and_none_without_an_auc():
    assert best_network(LABELS, {"a": WRONG, "b": RIGHT, "c": NOISE}) == "b"
    assert best_network(LABELS, {"a": WRONG, "b": RIGHT, "c": RIGHT}) == "b"
    assert best_network(LABELS[2:4], {"a": WRONG[2:4]}) is None


def test_networks_come_first_then_the_best_of_them_and_last_the_class_frequencies():
    methods = {"mean": NOISE, "a": RIGHT, "vote": WRONG, "b": WRONG}
    compared = compared_methods(methods, networks=["a", "b"], best="a", frequencies=LABELS.mean(axis=0))
    assert list(compared) == ["a", "b", "best single (a)", "mean", "vote", "prior"]
    assert compared["best single (a)"] is RIGHT
    np.testing.assert_array_equal(compared["prior"], np.tile([0.25, 0.25, 0.5], (8, 1)))
    assert "best single (None)" not in compared_methods(methods, networks=["a"], best=None, frequencies=np.ones(3) / 3)


def test_a_split_is_measured_against_its_vote():
    measured = methods_module.measure_split(
        LABELS,
        {"vote": RIGHT, "mean": NOISE},
        classes=ISIC_2017,
        by_seed={"vote": [RIGHT, WRONG]},
        fitted_on={"vote": "training"},
        seed=0,
    )
    assert measured["reference"] == "vote"
    assert list(measured["differences"]) == ["mean"]
    assert measured["fitted_on"] == {"vote": "training"}
    assert measured["seeds"]["vote"]["accuracy"][0] == 0.5


def test_the_spread_over_seeds_is_that_of_a_sample():
    spread = spread_over_seeds(LABELS, [RIGHT, WRONG, RIGHT])
    assert spread["seeds"] == 3
    assert spread["accuracy"] == pytest.approx([2 / 3, np.sqrt(1 / 3)])  # of 1, 0 and 1, divided by 3 - 1
    alone = spread_over_seeds(LABELS, [RIGHT])
    assert alone == {"seeds": 1, "accuracy": [1, None], "mean.auc": [1, None]}
    shown = [mean_and_deviation(of_seeds["accuracy"]) for of_seeds in (spread, alone)]
    assert shown == ["0.667 ± 0.577", "1.000"]
    assert "mean.auc" not in spread_over_seeds(LABELS[2:4], [RIGHT[2:4]] * 2)


def test_a_split_is_drawn_without_the_methods_that_were_fitted_on_it():
    methods = dict.fromkeys(("resnet50", "mean", "vote", "vote_on_validation"), NOISE)
    fitted_on = {"vote": "training", "vote_on_validation": "validation"}
    assert methods.keys() - unseen_methods(methods, fitted_on, "training").keys() == {"vote"}
    assert methods.keys() - unseen_methods(methods, fitted_on, "validation").keys() == {"vote_on_validation"}
    assert unseen_methods(methods, fitted_on, "test") == methods


def test_the_thick_curves_have_colours_of_their_own():
    colors = [method.color for method in METHODS.values() if method.color]
    assert len(set(colors)) == len(colors) == 4
