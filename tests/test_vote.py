"""The vote from several seeds, and what is told of them."""

from dataclasses import replace

import numpy as np
import pytest

import vote
from config import PRESETS
from evaluation.tables import mean_and_deviation


@pytest.fixture(scope="module")
def ballots():
    """Probabilities (images, classes, voters) and labels of 12 images."""
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(3), size=(12, 2)).transpose(0, 2, 1), np.eye(3)[np.arange(12) % 3]


def test_each_seed_fits_another_network_and_the_largest_seed_is_one(ballots):
    config = replace(PRESETS["sample"], seed=2**32 - 1, vote_seeds=2, vote_epochs=1, vote_learning_rate=1e-3)
    _, _, weights = vote.fit_vote(config, ballots, ballots)
    assert len(weights) == 2
    # They start from other weights, and one epoch at this learning rate moves none by more than a hundredth.
    assert np.abs(weights[0][0] - weights[1][0]).max() > 0.05
    _, _, following = vote.fit_vote(replace(config, seed=0, vote_seeds=1), ballots, ballots)
    for ours, theirs in zip(weights[1], following[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_spread_is_the_samples_standard_deviation():
    labels = np.eye(3)[[0, 0, 1, 2]]
    answers = [np.eye(3)[[0, 0, 1, 2]], np.eye(3)[[0, 1, 1, 2]], np.eye(3)[[1, 1, 1, 1]]]
    by_seed = [lambda ballots, answer=answer: answer for answer in answers]
    spread = vote.seeds_spread(labels, None, {"vote": by_seed, "alone": by_seed[:1]})
    assert spread["vote"]["seeds"] == 3
    assert spread["vote"]["accuracy"] == pytest.approx([2 / 3, np.std([1, 0.75, 0.25], ddof=1)])
    assert spread["alone"] == {"seeds": 1, "accuracy": [1, None], "mean.auc": [1, None]}
    assert [mean_and_deviation(spread[name]["accuracy"]) for name in spread] == ["0.667 ± 0.382", "1.000"]
