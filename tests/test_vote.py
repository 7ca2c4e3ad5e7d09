"""The vote from several seeds, and what is drawn."""

from dataclasses import replace

import numpy as np
import pytest

from config import PRESETS
from data.probabilities import Predictions
from models.vote import fit_vote
from pipeline import vote_results


@pytest.fixture(scope="module")
def predicted():
    """Probabilities (images, classes, backbones) and labels of 12 images."""
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(3), size=(12, 2)).transpose(0, 2, 1), np.eye(3)[np.arange(12) % 3]


def test_each_seed_fits_another_network_and_the_largest_seed_is_one(predicted):
    options = {"filters": 20, "learning_rate": 1e-3, "batch_size": 32, "epochs": 1}
    images = {"test": predicted[0]}
    first, _, by_seed = fit_vote(predicted, predicted, images, seeds=[2**32 - 1, 2**32], **options)
    second, _, (alone,) = fit_vote(predicted, predicted, images, seeds=[0], **options)
    assert len(by_seed) == 2
    np.testing.assert_allclose(first.predict(predicted[0], verbose=0), by_seed[0]["test"], atol=1e-6)
    # They start from other weights, and one epoch at this learning rate moves none by more than a hundredth.
    assert np.abs(first.get_weights()[0] - second.get_weights()[0]).max() > 0.05
    np.testing.assert_allclose(by_seed[1]["test"], alone["test"], atol=1e-4)
    assert np.abs(by_seed[0]["test"] - alone["test"]).max() > 1e-3


def test_curves_are_drawn_of_unseen_splits_without_what_was_fitted_on_them(predicted, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(vote_results, "curves", lambda kind, labels, methods, classes: drawn.append(set(methods)))
    monkeypatch.setattr(vote_results, "training_curves", lambda histories: None)
    monkeypatch.setattr(vote_results, "save", lambda figure, path: None)
    config = replace(PRESETS["sample"], run_dir=tmp_path, backbones=("resnet50", "xception"))
    sources = dict.fromkeys(config.splits, Predictions(np.arange(12), predicted[1], predicted[0]))
    means = dict.fromkeys(sources, predicted[0].mean(axis=-1))
    methods = dict.fromkeys(("mean", "vote", "vote_on_validation"), means)
    vote_results.write_results(config, sources, methods, votes_by_seed={}, histories={})
    everything = {*methods, *config.backbones}
    assert drawn == [everything - {"vote_on_validation"}, everything], "of training all would be in-sample"


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
    sources = dict.fromkeys(
        ("training", "validation", "training_oof"), Predictions(np.arange(12), predicted[1], predicted[0])
    )
    fitted = vote_results.fitted_on(config)
    methods = dict.fromkeys(("mean", *fitted), dict.fromkeys(sources, predicted[0].mean(axis=-1)))
    points = vote_results.operating_points(config, sources, methods)
    out_of_fold = {"stacking", "temperature"}
    assert {name: points[name]["split"] for name in points.keys() - out_of_fold} == chosen_on
    assert points["mean"]["class"] == "melanoma"
    assert points["mean"]["positive"] == 4
