import json
from functools import partial
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from data.classes import ISIC_2017
from evaluation import metrics
from evaluation.metrics import mask_metrics, mean_mask_metrics, summary
from tests import official_scorer
from tests.conftest import REPOSITORY

diagnosis_metrics = partial(metrics.diagnosis_metrics, classes=ISIC_2017)
resampled_metrics = partial(metrics.resampled_metrics, classes=ISIC_2017)
MELANOMA, KERATOSIS, NEVUS = np.eye(3)
# Eight images: truth, probabilities, and what each rule answers (M, S or N; then M and S at 0.5).
LABELS = np.array([MELANOMA] * 3 + [KERATOSIS] * 2 + [NEVUS] * 3)
PROBABILITIES = np.array(
    [
        (0.60, 0.20, 0.20),  # M   M: yes
        (0.40, 0.30, 0.30),  # M
        (0.30, 0.10, 0.60),  # N
        (0.55, 0.25, 0.20),  # M   M: yes
        (0.10, 0.80, 0.10),  # S   S: yes
        (0.50, 0.10, 0.40),  # M   as 0.5 is not enough
        (0.20, 0.20, 0.60),  # N
        (0.25, 0.40, 0.35),  # S
    ]
)
EXPECTED = {
    "accuracy": 4 / 8,  # images 1, 2, 5 and 7
    "balanced_accuracy": (2 / 3 + 1 / 2 + 1 / 3) / 3,
    "macro_f1": (4 / 7 + 2 / 4 + 2 / 5) / 3,  # nevus: 1 true and 1 false positive, 2 false negatives
    "macro_auc": (11 / 15 + 10 / 12 + 12.5 / 15) / 3,
    # Bins of 1/15 with their upper edge: 0.40 (one of two right), 0.50 (wrong), 0.55 and 0.60 (two of four), 0.80.
    "calibration_error": (abs(1 - 2 * 0.4) + 0.5 + abs(2 - 0.55 - 3 * 0.6) + abs(1 - 0.8)) / 8,
    "accuracy_two_tasks": (5 / 8 + 7 / 8) / 2,
    "accuracy_two_tasks_argmax": (5 / 8 + 6 / 8) / 2,
    "accuracy_one_vs_rest": (5 / 8 + 6 / 8 + 5 / 8) / 3,  # four wrong images, each wrong for two classes
    # Of the 3 x 5 pairs, 0.6 is above all five others, 0.4 and 0.3 each above 0.1, 0.2 and 0.25.
    "melanoma.auc": 11 / 15,
    # One melanoma is found among 1 image, two among 4, three among 5.
    "melanoma.average_precision": (1 / 1 + 2 / 4 + 3 / 5) / 3,
    # All three melanomas are found at 0.3, with two of the five others.
    **{f"melanoma.specificity_at_{s}": 3 / 5 for s in (82, 89, 95)},
    # 1 true and 1 false positive, 2 false and 4 true negatives
    "melanoma.threshold": {
        "accuracy": 5 / 8,
        "sensitivity": 1 / 3,
        "specificity": 4 / 5,
        "precision": 1 / 2,
        "f1": 2 / 5,
    },
    # 2 true and 2 false positives, 1 false and 3 true negatives
    "melanoma.argmax": {"accuracy": 5 / 8, "sensitivity": 2 / 3, "specificity": 3 / 5, "precision": 2 / 4, "f1": 4 / 7},
    # Of the 2 x 6 pairs, 0.8 is above all six others, 0.25 above four.
    "seborrheic_keratosis.auc": 10 / 12,
    "seborrheic_keratosis.average_precision": (1 / 1 + 2 / 4) / 2,
    **{f"seborrheic_keratosis.specificity_at_{s}": 4 / 6 for s in (82, 89, 95)},
    # 1 true and no false positive, 1 false and 6 true negatives
    "seborrheic_keratosis.threshold": {
        "accuracy": 7 / 8,
        "sensitivity": 1 / 2,
        "specificity": 1,
        "precision": 1,
        "f1": 2 / 3,
    },
    # 1 true and 1 false positive, 1 false and 5 true negatives
    "seborrheic_keratosis.argmax": {
        "accuracy": 6 / 8,
        "sensitivity": 1 / 2,
        "specificity": 5 / 6,
        "precision": 1 / 2,
        "f1": 2 / 4,
    },
}
OFFICIAL = json.loads((REPOSITORY / "tests" / "official_scorer.json").read_text())


def rule(figures, prefix):
    """The figures of one task and one rule."""
    return {name.removeprefix(f"{prefix}."): value for name, value in figures.items() if name.startswith(f"{prefix}.")}


@pytest.mark.parametrize("name", official_scorer.BOXES)
def test_mask_metrics_are_those_of_the_official_scorer(name):
    mask, truth = official_scorer.masks()[name]
    assert mask_metrics(mask, truth) == pytest.approx(OFFICIAL["masks"][name], abs=1e-9)
    assert mask_metrics(mask // 255, truth) == mask_metrics(mask, truth), "any value but 0 is lesion"


def test_mask_metrics_are_averaged_over_images():
    means = mean_mask_metrics([mask_metrics(*pair) for pair in official_scorer.masks().values()])
    assert means["jaccard"] == pytest.approx((0.875 + 15 / 39 + 0 + 0 + 0 + 1 + 0.5) / 7)
    assert means["threshold_jaccard"] == pytest.approx((0.875 + 0 + 0 + 0 + 0 + 1 + 0) / 7)


@pytest.mark.parametrize(("lesion", "kept"), [(13, 13 / 20), (12, 0)])
def test_a_jaccard_index_of_65_percent_is_enough(lesion, kept):
    mask, truth = np.ones((2, 10)), np.arange(20).reshape(2, 10) < lesion
    assert mask_metrics(mask, truth)["threshold_jaccard"] == kept


def test_diagnosis_metrics_by_hand():
    figures = diagnosis_metrics(LABELS, PROBABILITIES)
    for name, expected in EXPECTED.items():
        if isinstance(expected, dict):
            assert rule(figures, name) == pytest.approx(expected), name
        else:
            assert figures[name] == pytest.approx(expected), name
    for name, value in rule(figures, "mean").items():
        assert value == (figures[f"melanoma.{name}"] + figures[f"seborrheic_keratosis.{name}"]) / 2
    assert len(figures) == 8 + 3 * (5 + 2 * 5)


@pytest.mark.parametrize("table", ["probabilities", "scores"])
def test_diagnosis_metrics_are_those_of_the_official_scorer(table):
    """But for the partial area above 80 % sensitivity, of later challenges, and 0 / 0: its 1 is our None."""
    labels, probabilities, scores = official_scorer.diagnoses()
    official, values = OFFICIAL[table], {"probabilities": probabilities, "scores": scores}[table]
    assert (values == 0.5).sum() == (table == "scores")  # no is the answer to it
    figures = diagnosis_metrics(labels, values)
    names = {"auc": "auc", "average_precision": "ap"}
    names |= {"threshold.accuracy": "accuracy", "threshold.sensitivity": "sensitivity"}
    names |= {"threshold.specificity": "specificity", "threshold.precision": "ppv", "threshold.f1": "dice"}
    for task, (ours, theirs) in product(("melanoma", "seborrheic_keratosis"), names.items()):
        assert figures[f"{task}.{ours}"] == pytest.approx(official["per_category"][theirs][task], abs=1e-9), (
            task,
            ours,
        )
    for task, curve in official["specificity_at"].items():
        for sensitivity, specificity in curve.items():
            name = f"{task}.specificity_at_{sensitivity.removeprefix('0.')}"
            assert figures[name] == pytest.approx(specificity, abs=1e-9), name
    if table == "scores":
        assert figures["mean.auc"] == pytest.approx(official["macro_average"]["auc"])
        assert figures["accuracy_two_tasks"] == pytest.approx(official["macro_average"]["accuracy"])
    else:
        assert figures["macro_auc"] == pytest.approx(official["macro_average"]["auc"])
        assert figures["balanced_accuracy"] == pytest.approx(official["aggregate"]["balanced_accuracy"])


def by_scikit_learn(labels, probabilities):
    """The figures of `diagnosis_metrics` but the calibration error, by scikit-learn; NaN where one is not defined."""

    def decisions(truth, answers):
        return {
            "accuracy": accuracy_score(truth, answers),
            "sensitivity": recall_score(truth, answers, zero_division=np.nan),
            "specificity": recall_score(truth, answers, pos_label=False, zero_division=np.nan),
            "precision": precision_score(truth, answers, zero_division=np.nan),
            "f1": f1_score(truth, answers, zero_division=np.nan),
        }

    figures, tasks, truth = {}, {}, labels.argmax(axis=1)
    for k, task in enumerate(("melanoma", "seborrheic_keratosis")):
        positive, scores = truth == k, probabilities[:, k]
        false_positive, true_positive, _ = roc_curve(positive, scores)
        tasks[task] = {
            "auc": roc_auc_score(positive, scores),
            "average_precision": average_precision_score(positive, scores),
        }
        for sensitivity in (82, 89, 95):
            reached = np.argmax(true_positive >= sensitivity / 100)
            tasks[task][f"specificity_at_{sensitivity}"] = 1 - false_positive[reached]
        tasks[task] |= {f"threshold.{name}": value for name, value in decisions(positive, scores > 0.5).items()}
        if probabilities.shape[1] == 3:
            answers = decisions(positive, probabilities.argmax(axis=1) == k)
            tasks[task] |= {f"argmax.{name}": value for name, value in answers.items()}
    tasks["mean"] = {
        name: (value + tasks["seborrheic_keratosis"][name]) / 2 for name, value in tasks["melanoma"].items()
    }
    figures = {f"{task}.{name}": value for task, values in tasks.items() for name, value in values.items()}
    figures["accuracy_two_tasks"] = figures["mean.threshold.accuracy"]
    if probabilities.shape[1] == 3:
        answers = probabilities.argmax(axis=1)
        figures |= {
            "accuracy": accuracy_score(truth, answers),
            "balanced_accuracy": balanced_accuracy_score(truth, answers),
            "macro_f1": f1_score(truth, answers, average="macro"),
            "macro_auc": roc_auc_score(truth, probabilities, multi_class="ovr"),
            "accuracy_two_tasks_argmax": figures["mean.argmax.accuracy"],
            "accuracy_one_vs_rest": np.mean([accuracy_score(truth == k, answers == k) for k in range(3)]),
        }
    return figures


def made_up(generator, images, columns=3):
    """Labels and probabilities that go with them; at least two images of each class."""
    labels = np.eye(3)[np.r_[0, 0, 1, 1, 2, 2, generator.choice(3, images - 6, p=[0.2, 0.15, 0.65])]]
    return labels, (generator.dirichlet([1, 1, 1], images) * 0.7 + 0.3 * labels)[:, :columns]


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("images", [9, 60])
def test_a_resample_has_the_figures_of_the_images_drawn(images, columns):
    generator = np.random.default_rng(images)
    labels, probabilities = made_up(generator, images, columns)
    weights = np.zeros((12, images))
    for k in range(3):
        (members,) = np.nonzero(labels[:, k])
        weights[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), 12)
    samples = resampled_metrics(labels, probabilities, weights)
    for k, row in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(images), row)
        figures = {name: values[k] for name, values in samples.items()}
        expected = by_scikit_learn(labels[drawn], probabilities[drawn])
        assert {name: figures[name] for name in expected} == pytest.approx(expected, nan_ok=True)
        alone = diagnosis_metrics(labels[drawn], probabilities[drawn])
        assert figures == pytest.approx({n: np.nan if v is None else v for n, v in alone.items()}, nan_ok=True)


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_scikit_learn_where_images_share_scores(seed, digits):
    labels, scores = made_up(np.random.default_rng(seed), 40, 2)
    figures, expected = diagnosis_metrics(labels, scores.round(digits)), by_scikit_learn(labels, scores.round(digits))
    assert {name: np.nan if figures[name] is None else figures[name] for name in expected} == pytest.approx(
        expected, nan_ok=True
    )


def test_specificity_is_that_of_a_corner_of_the_curve():
    # Each score is shared by a melanoma and a nevus: the curve is the diagonal, and has no corner between its ends.
    labels, scores = np.repeat(np.eye(3)[[0, 2]], 10, axis=0), np.tile(np.arange(10) / 10, 2)
    scores = np.stack([scores, np.zeros(20)], axis=1)
    false_positive, true_positive, _ = roc_curve(labels[:, 0], scores[:, 0])
    expected = 1 - false_positive[np.argmax(true_positive >= 0.82)]
    assert diagnosis_metrics(labels, scores)["melanoma.specificity_at_82"] == expected == 0


def test_scores_that_all_images_share_are_one_threshold():
    figures = diagnosis_metrics(np.eye(3)[[0, 0, 1, 1, 2, 2]], np.full((6, 3), 1 / 3))
    assert figures["melanoma.auc"] == 0.5
    assert figures["melanoma.average_precision"] == pytest.approx(2 / 6)
    assert figures["melanoma.specificity_at_82"] == 0


def test_two_scores_have_the_figures_of_the_two_tasks_alone():
    three, two = diagnosis_metrics(LABELS, PROBABILITIES), diagnosis_metrics(LABELS, PROBABILITIES[:, :2])
    assert list(two) == list(three)
    for name, value in two.items():
        of_tasks = "argmax" not in name and ("." in name or name == "accuracy_two_tasks")
        assert value == (three[name] if of_tasks else None), name


def test_figures_of_a_split_of_nevi_alone_are_none_where_undefined():
    figures = diagnosis_metrics(LABELS[5:], PROBABILITIES[5:] * (0.5, 0.5, 2))  # every answer is no
    undefined = {"sensitivity": None, "precision": None, "f1": None}
    for task in ("melanoma", "seborrheic_keratosis", "mean"):
        for name in ("auc", "average_precision", "specificity_at_82"):
            assert figures[f"{task}.{name}"] is None
        for decision in ("argmax", "threshold"):
            assert rule(figures, f"{task}.{decision}") == {"accuracy": 1, "specificity": 1} | undefined
    assert figures["accuracy"] == 1
    assert figures["balanced_accuracy"] is figures["macro_f1"] is figures["macro_auc"] is None


def test_positives_that_are_all_missed_have_no_precision_and_f1_of_0():
    never = np.tile([0.1, 0.1, 0.8], (8, 1))
    figures = rule(diagnosis_metrics(LABELS, never), "melanoma.threshold")
    assert figures == {"accuracy": 5 / 8, "sensitivity": 0, "specificity": 1, "precision": None, "f1": 0}


def test_the_summary_has_the_accuracy_and_the_area_of_every_class_where_it_is_defined():
    # Nevus: 0.4 and 0.35 above 0.2, 0.3, 0.2 and 0.1; 0.6 above all and even with 0.6.
    areas = f"melanoma {11 / 15:.3f}, seborrheic_keratosis {10 / 12:.3f}, nevus {(4 + 4.5 + 4) / 15:.3f}"
    assert summary(LABELS, PROBABILITIES, ISIC_2017) == f"accuracy 0.500, AUC {areas} (8 images)"
    assert "seborrheic_keratosis" not in summary(LABELS[[0, 1, 5, 6]], PROBABILITIES[[0, 1, 5, 6]], ISIC_2017)
