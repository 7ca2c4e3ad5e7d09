"""The vote from several seeds, and what is drawn."""

from dataclasses import replace

import numpy as np
import pytest

import vote
from config import PRESETS


@pytest.fixture(scope="module")
def predicted():
    """Probabilities (images, classes, backbones) and labels of 12 images."""
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(3), size=(12, 2)).transpose(0, 2, 1), np.eye(3)[np.arange(12) % 3]


def test_each_seed_fits_another_network_and_the_largest_seed_is_one(predicted):
    config = replace(PRESETS["sample"], seed=2**32 - 1, vote_seeds=2, vote_epochs=1, vote_learning_rate=1e-3)
    _, _, weights = vote.fit_vote(config, "vote", predicted, predicted)
    assert len(weights) == 2
    # They start from other weights, and one epoch at this learning rate moves none by more than a hundredth.
    assert np.abs(weights[0][0] - weights[1][0]).max() > 0.05
    _, _, following = vote.fit_vote(replace(config, seed=0, vote_seeds=1), "vote", predicted, predicted)
    for second, first in zip(weights[1], following[0], strict=True):
        np.testing.assert_allclose(second, first, atol=1e-4)


def test_curves_are_drawn_of_unseen_splits_without_what_was_fitted_on_them(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(vote, "curves", lambda kind, labels, methods, classes: drawn.append(set(methods)))
    monkeypatch.setattr(vote, "training_curves", lambda histories: None)
    monkeypatch.setattr(vote, "save", lambda figure, path: None)
    methods = dict.fromkeys(("resnet50", "mean", "vote", "vote_on_validation"), np.eye(3))
    splits = ("training", "validation", "test")
    vote.draw(
        replace(PRESETS["sample"], run_dir=tmp_path), dict.fromkeys(splits, np.eye(3)), dict.fromkeys(splits, methods)
    )
    assert drawn == [methods.keys() - {"vote_on_validation"}, set(methods)], "of training all would be in-sample"


@pytest.mark.parametrize(
    ("changes", "chosen_on"),
    [
        ({}, {"mean": "validation", "vote": "validation"}),
        ({"vote_fit_split": "validation"}, {"mean": "validation", "vote_on_training": "validation"}),
        ({"folds": 2}, {"mean": "training, out of fold", "vote": "validation", "vote_oof": "validation"}),
    ],
)
def test_operating_points_are_chosen_on_images_that_a_method_has_not_seen(predicted, changes, chosen_on):
    config = replace(PRESETS["sample"], **changes)
    predictions, labels = predicted
    tables = dict.fromkeys(("training", "validation", "training_oof"), predictions)
    truth = dict.fromkeys(tables, labels)
    methods = dict.fromkeys(("mean", *vote.fitted_on(config)), lambda probabilities: probabilities.mean(axis=-1))
    points = vote.operating_points(config, truth, tables, methods)
    assert {name: points[name]["split"] for name in points if name != "stacking"} == chosen_on
    assert points["mean"]["class"] == "melanoma"
    assert points["mean"]["positive"] == 4
