import json

import numpy as np
import pytest

from evaluation.metrics import areas_under_curve, diagnosis_metrics, jaccard_and_dice, metrics_tables, summary

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
        (0.50, 0.10, 0.40),  # M   M: yes, as 0.5 is enough
        (0.20, 0.20, 0.60),  # N
        (0.25, 0.40, 0.35),  # S
    ]
)
EXPECTED = {
    "images": 8,
    "accuracy": 4 / 8,  # images 1, 2, 5 and 7
    "melanoma": {
        # Of the 3 x 5 pairs, 0.6 is above all five others, 0.4 and 0.3 each above 0.1, 0.2 and 0.25.
        "auc": 11 / 15,
        # 2 true and 2 false positives, 1 false and 3 true negatives
        "argmax": {"accuracy": 5 / 8, "sensitivity": 2 / 3, "specificity": 3 / 5, "precision": 2 / 4, "f1": 4 / 7},
        # 1 true and 2 false positives, 2 false and 3 true negatives
        "threshold": {"accuracy": 4 / 8, "sensitivity": 1 / 3, "specificity": 3 / 5, "precision": 1 / 3, "f1": 2 / 6},
    },
    "seborrheic_keratosis": {
        # Of the 2 x 6 pairs, 0.8 is above all six others, 0.25 above four.
        "auc": 10 / 12,
        # 1 true and 1 false positive, 1 false and 5 true negatives
        "argmax": {"accuracy": 6 / 8, "sensitivity": 1 / 2, "specificity": 5 / 6, "precision": 1 / 2, "f1": 2 / 4},
        # 1 true and no false positive, 1 false and 6 true negatives
        "threshold": {"accuracy": 7 / 8, "sensitivity": 1 / 2, "specificity": 1, "precision": 1, "f1": 2 / 3},
    },
}


def flat(figures, prefix=""):
    """Nested dictionaries as one, with joined names."""
    return {
        name: value
        for key, inner in figures.items()
        for name, value in (
            flat(inner, f"{prefix}{key} ").items() if isinstance(inner, dict) else {f"{prefix}{key}": inner}.items()
        )
    }


@pytest.mark.parametrize(
    ("mask", "truth", "jaccard", "dice"),
    [
        ([1, 1, 1, 0, 0], [0, 1, 1, 1, 0], 2 / 4, 4 / 6),
        ([1, 0, 0, 0, 0], [1, 1, 1, 1, 0], 1 / 4, 2 / 5),
        ([1, 1, 0, 0, 0], [1, 1, 0, 0, 0], 1, 1),
        ([1, 0, 0, 0, 0], [0, 0, 0, 0, 1], 0, 0),
        ([0, 0, 0, 0, 0], [1, 0, 0, 0, 0], 0, 0),
        ([1, 0, 0, 0, 0], [0, 0, 0, 0, 0], 0, 0),
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], 1, 1),
    ],
)
@pytest.mark.parametrize("foreground", [1, 255])
def test_overlap_of_two_masks(mask, truth, jaccard, dice, foreground):
    mask, truth = np.uint8([mask]) * foreground, np.uint8([truth]) * 255
    assert jaccard_and_dice(mask, truth) == pytest.approx((jaccard, dice))


def test_diagnosis_metrics_by_hand():
    assert flat(diagnosis_metrics(LABELS, PROBABILITIES)) == pytest.approx(flat(EXPECTED))


def test_figures_of_a_split_of_nevi_alone_are_none_where_undefined():
    figures = diagnosis_metrics(LABELS[5:], PROBABILITIES[5:] * (0.5, 0.5, 2))  # every answer is no
    undefined = {"sensitivity": None, "precision": None, "f1": None}
    for task in ("melanoma", "seborrheic_keratosis"):
        assert figures[task]["auc"] is None
        for rule in ("argmax", "threshold"):
            assert figures[task][rule] == {"accuracy": 1, "specificity": 1} | undefined


def test_specificity_of_melanomas_alone_is_none():
    figures = diagnosis_metrics(LABELS[:2], PROBABILITIES[:2])["melanoma"]
    assert figures["argmax"] == {"accuracy": 1, "sensitivity": 1, "specificity": None, "precision": 1, "f1": 1}
    assert figures["threshold"]["accuracy"] == 0.5


def test_positives_that_are_all_missed_have_no_precision_and_f1_of_0():
    never = np.tile([0.1, 0.1, 0.8], (8, 1))
    figures = diagnosis_metrics(LABELS, never)["melanoma"]["threshold"]
    assert figures == {"accuracy": 5 / 8, "sensitivity": 0, "specificity": 1, "precision": None, "f1": 0}


def test_metrics_survive_json():
    metrics = {"test": {"vote": diagnosis_metrics(LABELS[5:], PROBABILITIES[5:].astype(np.float32))}}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_areas_under_curve_name_every_class():
    areas = areas_under_curve(LABELS, PROBABILITIES)
    # Nevus: 0.4 and 0.35 above 0.2, 0.3, 0.2 and 0.1; 0.6 above all and even with 0.6.
    expected = {"melanoma": 11 / 15, "seborrheic_keratosis": 10 / 12, "nevus": (4 + 4.5 + 4) / 15}
    assert areas == pytest.approx(expected)
    assert areas_under_curve(LABELS[5:], PROBABILITIES[5:]) == dict.fromkeys(expected)


def test_summary_leaves_out_areas_that_are_not_defined():
    line = summary(LABELS, PROBABILITIES)
    assert "accuracy 0.500" in line
    assert "melanoma 0.733" in line
    assert "8 images" in line
    assert "seborrheic_keratosis" not in summary(LABELS[[0, 1, 5, 6]], PROBABILITIES[[0, 1, 5, 6]])


def test_tables_have_a_row_for_each_method_in_each_table():
    figures, undefined = (diagnosis_metrics(LABELS[k:], PROBABILITIES[k:]) for k in (0, 5))
    text = metrics_tables({"validation": {"xception": figures, "vote": figures}, "test": {"vote": undefined}})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows if row[0] not in ("method", "---")] == ["xception", "vote"] * 3 + ["vote"] * 3
    assert [row for row in rows if row[0] == "xception"] == [
        ["xception", "0.500", "0.733", "0.833", "0.783"],  # the mean of 11/15 and 10/12
        ["xception", "0.625 / 0.500", "0.667 / 0.333", "0.600 / 0.600", "0.500 / 0.333", "0.571 / 0.333"],
        ["xception", "0.750 / 0.875", "0.500 / 0.500", "0.833 / 1.000", "0.500 / 1.000", "0.500 / 0.667"],
    ]
    assert ["vote", "0.333", "-", "-", "-"] in rows
    headers = [row for row in rows if row[0] == "method"]
    assert headers[0] == ["method", "three-way accuracy", "AUC melanoma", "AUC seborrheic_keratosis", "mean AUC"]
    assert headers[1] == ["method", "accuracy", "sensitivity", "specificity", "precision", "f1"]
    assert "## validation (8 images)" in text
    assert "## test (3 images)" in text


def test_tables_of_no_labelled_split_are_empty():
    assert metrics_tables({}) == ""
