"""Thresholds that reach a sensitivity."""

import numpy as np
import pytest

from evaluation.operating_points import at_threshold, kept_operating_points, points_by_method, thresholds


def test_thresholds_by_hand():
    labels = [1, 1, 0, 1, 0, 1, 0, 0]
    scores = [0.9, 0.8, 0.8, 0.6, 0.5, 0.4, 0.3, 0.1]
    assert thresholds(labels, scores, (0.25, 0.5, 0.75, 0.76, 1)) == {
        0.25: {"threshold": 0.9, "sensitivity": 0.25, "specificity": 1.0},
        0.5: {"threshold": 0.8, "sensitivity": 0.5, "specificity": 0.75},
        0.75: {"threshold": 0.6, "sensitivity": 0.75, "specificity": 0.75},
        0.76: {"threshold": 0.4, "sensitivity": 1.0, "specificity": 0.5},
        1: {"threshold": 0.4, "sensitivity": 1.0, "specificity": 0.5},
    }


@pytest.mark.parametrize("digits", [1, 2, 6])  # with many equal scores, with some, with none
def test_no_higher_threshold_reaches_the_sensitivity(digits):
    generator = np.random.default_rng(digits)
    labels = generator.random(300) < 0.2
    scores = np.round(generator.random(300) * 0.7 + 0.3 * labels, digits)
    for sensitivity, point in thresholds(labels, scores).items():
        assert point["threshold"] in scores
        assert at_threshold(labels, scores, point["threshold"]) == (point["sensitivity"], point["specificity"])
        assert point["sensitivity"] >= sensitivity
        higher = [at_threshold(labels, scores, score)[0] for score in np.unique(scores) if score > point["threshold"]]
        assert all(reached < sensitivity for reached in higher)


@pytest.mark.parametrize("label", [0, 1])
def test_images_of_one_kind_have_no_operating_point(label):
    assert thresholds([label, label], [0.2, 0.7]) == {}
    assert at_threshold([label, label], [0.2, 0.7], 0.5)[label] is None


def test_kept_thresholds_lie_between_scores():
    labels, scores = [1, 1, 1, 1, 0, 0], [0.9, 0.8, 0.8, 0.4, 0.6, 0.2]
    kept = kept_operating_points(labels, scores, split="validation", class_name="melanoma")
    assert (kept["split"], kept["images"], kept["positive"]) == ("validation", 6, 4)
    assert [point["sensitivity"] for point in kept["points"]] == [0.82, 0.89, 0.95]
    for point in kept["points"]:
        assert point["threshold"] == pytest.approx(0.3)  # all four are needed for 82 %
        assert (point["reached"], point["specificity"]) == (1, 0.5)
        assert at_threshold(labels, scores, point["threshold"]) == (point["reached"], point["specificity"])
    assert kept_operating_points([0, 0], [0.1, 0.2], split="validation", class_name="melanoma")["points"] == []


def test_a_method_that_was_fitted_on_the_images_has_no_operating_points():
    labels, classes = np.eye(2)[[0, 0, 1, 1]], ("benign", "malignant")
    methods = dict.fromkeys(("mean", "vote", "vote_on_validation"), np.eye(2)[[0, 1, 1, 1]])
    fitted_on = {"vote": "training", "vote_on_validation": "validation"}
    points = points_by_method(labels, methods, classes=classes, split="validation", fitted_on=fitted_on)
    assert list(points) == ["mean", "vote"]
    assert (points["vote"]["class"], points["vote"]["positive"]) == ("malignant", 2)
    assert points["vote"]["points"][0]["specificity"] == 0.5
