import tracemalloc
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from data.classes import ISIC_2017
from evaluation import bootstrap
from evaluation.bootstrap import curve_bands, draws, mean_intervals
from tests.test_metrics import diagnosis_metrics, made_up, resampled_metrics

measure = partial(bootstrap.measure, classes=ISIC_2017)


@pytest.fixture(scope="module")
def generator():
    return np.random.default_rng(0)


def all_draws(strata, repetitions, seed):
    """All resamples of `draws` as one array (repetitions, images)."""
    return np.concatenate(list(draws(strata, repetitions, seed)))


@pytest.mark.parametrize("block", [bootstrap.BLOCK, 40])
def test_draws_keep_the_classes_and_follow_the_seed(monkeypatch, block):
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    strata = np.array([2, 0, 0, 1, 2, 2, 2, 0])
    counts = all_draws(strata, 500, seed=3)
    assert counts.shape == (500, 8)
    for stratum, images in ((0, 3), (1, 1), (2, 4)):
        assert (counts[:, strata == stratum].sum(axis=1) == images).all()
    assert (counts[:, 3] == 1).all()  # alone in its class
    assert counts[:, 0].std() > 0
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.15)
    np.testing.assert_array_equal(counts, all_draws(strata, 500, seed=3))
    assert (counts != all_draws(strata, 500, seed=4)).any()
    assert len(np.unique(counts, axis=0)) > 60, "a block repeats another"


def test_images_of_one_lesion_count_as_one(generator):
    """With every image twice, the intervals are those of the images once, if each pair is a group."""
    labels, probabilities = made_up(generator, 40)
    once = measure(labels, {"one": probabilities})["intervals"]["one"]
    groups = np.repeat([f"lesion {k}" for k in range(40)], 2).tolist()
    twice = [np.repeat(array, 2, axis=0) for array in (labels, probabilities)]
    grouped = measure(twice[0], {"one": twice[1]}, groups=groups)["intervals"]["one"]
    alone = measure(twice[0], {"one": twice[1]}, groups=[""] * 80)["intervals"]["one"]
    assert alone == measure(twice[0], {"one": twice[1]})["intervals"]["one"]
    for figure in ("accuracy", "melanoma.auc", "mean.argmax.f1"):
        assert grouped[figure] == pytest.approx(once[figure])
        assert np.ptp(alone[figure]) < 0.9 * np.ptp(once[figure])
    bands = curve_bands(labels[:, 0], probabilities[:, 0], "roc")
    np.testing.assert_allclose(curve_bands(twice[0][:, 0], twice[1][:, 0], "roc", groups=groups), bands, atol=1e-12)
    figures = [{"jaccard": value} for value in probabilities[:, 0]]
    means = mean_intervals([figure for figure in figures for _ in range(2)], groups=groups)
    assert means["jaccard"] == pytest.approx(mean_intervals(figures)["jaccard"])


def test_a_patient_with_several_classes_counts_for_the_rarest():
    strata, groups = np.array([0, 0, 0, 1, 0, 0]), ["a", "a", "b", "b", "", "c"]
    counts = np.concatenate(list(draws(strata, 200, 0, groups)))
    assert (counts[:, 2] == counts[:, 3]).all()
    assert (counts[:, 3] == 1).all(), "the only patient of its class"
    assert (counts[:, 0] == counts[:, 1]).all()
    assert counts[:, 4].std() > 0


def test_a_single_group_has_no_intervals(generator):
    labels, probabilities = made_up(generator, 40)
    found = measure(labels, {"one": probabilities}, groups=["hospital"] * 40)
    assert set(found["intervals"]["one"].values()) == {None}
    assert mean_intervals([{"dice": 0.5}] * 40, groups=["hospital"] * 40) == {"dice": None}


def test_the_memory_of_the_resamples_does_not_grow_with_their_number():
    strata = np.zeros(50_000)
    tracemalloc.start()
    try:
        assert sum(len(counts) for counts in draws(strata, 100, seed=0)) == 100
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * strata.nbytes  # all counts at once are 100 times the strata


def test_figures_do_not_depend_on_the_size_of_the_blocks(generator, monkeypatch):
    labels, probabilities = made_up(generator, 40)
    monkeypatch.setattr(bootstrap, "draws", lambda *_: iter(np.split(counts, [5, 9])))
    counts = all_draws(labels.argmax(axis=1), 20, seed=2)
    in_blocks = measure(labels, {"one": probabilities}), curve_bands(labels[:, 0], probabilities[:, 0], "roc")
    monkeypatch.setattr(bootstrap, "draws", lambda *_: iter([counts]))
    at_once = measure(labels, {"one": probabilities}), curve_bands(labels[:, 0], probabilities[:, 0], "roc")
    assert in_blocks[0] == at_once[0]
    np.testing.assert_array_equal(in_blocks[1], at_once[1])


def test_an_interval_by_hand():
    # Two melanomas, one found: of a resample's two draws 0, 1 or 2 are found with probabilities 1/4, 1/2 and 1/4.
    labels = np.eye(3)[[0, 0, 1, 2]]
    probabilities = np.array([[0.9, 0.05, 0.05], [0.2, 0.1, 0.7], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    measured = measure(labels, {"one": probabilities}, repetitions=2000)
    sensitivities = resampled_metrics(labels, probabilities, all_draws(labels.argmax(1), 2000, 0))[
        "melanoma.argmax.sensitivity"
    ]
    np.testing.assert_allclose([(sensitivities == s).mean() for s in (0, 0.5, 1)], [0.25, 0.5, 0.25], atol=0.04)
    intervals = measured["intervals"]["one"]
    assert intervals["melanoma.argmax.sensitivity"] == [0, 1]
    assert intervals["accuracy"] == [0.5, 1]
    assert intervals["seborrheic_keratosis.auc"] == [1, 1]
    assert intervals["melanoma.argmax.precision"] == [1, 1], "resamples without a positive answer are left out"
    assert intervals["calibration_error"] is None


def test_an_interval_is_as_wide_as_the_normal_approximation_says(generator):
    labels, probabilities = made_up(generator, 500)
    measured = measure(labels, {"one": probabilities}, repetitions=2000)
    figures, intervals = measured["methods"]["one"], measured["intervals"]["one"]
    sensitivity, positives = figures["melanoma.argmax.sensitivity"], labels[:, 0].sum()
    half = 1.96 * np.sqrt(sensitivity * (1 - sensitivity) / positives)
    expected = [sensitivity - half, sensitivity + half]
    assert intervals["melanoma.argmax.sensitivity"] == pytest.approx(expected, abs=0.02)
    for name, interval in intervals.items():
        if interval is not None:
            assert interval[0] <= figures[name] <= interval[1], name


def test_differences_are_paired(generator):
    labels, probabilities = made_up(generator, 120)
    better = probabilities * 0.8 + 0.2 * labels
    methods = {"base": probabilities, "same": probabilities.copy(), "better": better, "two": probabilities[:, :2]}
    measured = measure(labels, methods, "base", repetitions=300)
    assert measured["methods"] == {name: diagnosis_metrics(labels, values) for name, values in methods.items()}
    assert measured == measure(labels, methods, "base", repetitions=300)
    assert list(measured["differences"]) == ["same", "better", "two"]
    for name, difference in measured["differences"]["same"].items():
        undefined = measured["intervals"]["base"][name] is None
        assert difference["difference"] == (None if measured["methods"]["base"][name] is None else 0)
        assert difference["interval"] == (None if undefined else [0, 0])
    gain = measured["differences"]["better"]["mean.auc"]
    areas = {name: figures["mean.auc"] for name, figures in measured["methods"].items()}
    assert gain["difference"] == pytest.approx(areas["better"] - areas["base"])
    assert 0 < gain["interval"][0] < gain["difference"] < gain["interval"][1]
    assert measured["differences"]["two"]["accuracy"] == {"difference": None, "interval": None}
    assert measure(labels, methods, repetitions=10)["differences"] == {}


def test_bands_lie_around_the_curve(generator):
    labels, probabilities = made_up(generator, 200)
    truth, scores = labels[:, 0], probabilities[:, 0]
    false_positive, true_positive, _ = roc_curve(truth, scores, drop_intermediate=False)
    grid, value, low, high = curve_bands(truth, scores, "roc", 200)
    assert grid.shape == value.shape == low.shape == high.shape == (101,)
    np.testing.assert_allclose(value, [true_positive[false_positive <= x + 1e-9].max() for x in grid], atol=1e-9)
    for kind in ("roc", "precision_recall"):
        grid, value, low, high = curve_bands(truth, scores, kind, 200)
        assert (low <= value + 1e-9).mean() > 0.95
        assert (high >= value - 1e-9).mean() > 0.95
        assert (high - low).max() > 0.02


def test_precision_at_a_recall_by_hand():
    # Positives are ranked 1st, 3rd and 6th of six: precisions 1, 2/3 and 1/2 from recalls 1/3, 2/3 and 1.
    grid, value, _, _ = curve_bands([1, 0, 1, 0, 0, 1], [6, 5, 4, 3, 2, 1], "precision_recall", 10)
    np.testing.assert_allclose(value, np.select([grid <= 1 / 3, grid <= 2 / 3], [1, 2 / 3], 1 / 2))


def test_intervals_of_means_over_images():
    agreements = [{"jaccard": value, "dice": 0.5} for value in (0.0, 1.0) * 50]
    intervals = mean_intervals(agreements, seed=1)
    assert intervals["dice"] == [0.5, 0.5]
    low, high = intervals["jaccard"]
    assert 0.38 < low < 0.42  # 100 tosses of a coin: 0.5 -+ 1.96 * 0.05
    assert 0.58 < high < 0.62
