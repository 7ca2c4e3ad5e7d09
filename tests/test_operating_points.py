"""Thresholds for wanted sensitivities."""

import numpy as np
import pytest

from evaluation.operating_points import choose_operating_points

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
TRUTH = np.array([1, 0, 1, 1, 0, 1], bool)


@pytest.mark.parametrize(
    ("sensitivity", "threshold", "reached", "specificity"),
    [(0.5, 0.65, 0.5, 0.5), (0.51, 0.55, 0.75, 0.5), (0.75, 0.55, 0.75, 0.5), (1.0, 0.2, 1.0, 0.0)],
)
def test_the_largest_threshold_that_reaches_a_sensitivity_is_chosen(sensitivity, threshold, reached, specificity):
    (point,) = choose_operating_points(TRUTH, SCORES, [sensitivity])
    assert point["threshold"] == pytest.approx(threshold)
    assert (point["reached"], point["specificity"]) == (reached, specificity)


def test_images_of_one_score_share_an_answer():
    (point,) = choose_operating_points([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.1], [0.5])
    assert point["threshold"] == pytest.approx(0.3)
    assert (point["reached"], point["specificity"]) == (1, 0.5)


def test_without_positive_or_negative_images_what_is_undefined_is_left_out():
    assert choose_operating_points([0, 0], [0.1, 0.2]) == []
    assert [point["specificity"] for point in choose_operating_points([1, 1], [0.1, 0.2])] == [None] * 3
