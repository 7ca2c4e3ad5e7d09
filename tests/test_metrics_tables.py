import json

import numpy as np

from data.classes import ISIC_2017
from evaluation.bootstrap import measure
from evaluation.tables import aligned_table, metrics_tables
from tests.test_metrics import LABELS, PROBABILITIES


def test_tables_show_every_method_and_survive_json():
    measured = measure(
        LABELS, {"xception": PROBABILITIES, "theirs": PROBABILITIES[:, :2]}, "xception", 50, classes=ISIC_2017
    )
    undefined = measure(LABELS[5:], {"vote": PROBABILITIES[5:].astype(np.float32)}, None, 50, classes=ISIC_2017)
    splits = {"validation": measured, "test": undefined}
    assert json.loads(json.dumps(splits, allow_nan=False)) == splits
    text = metrics_tables(splits)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    by_method = {name: [row for row in rows if row[0] == name] for name in ("xception", "theirs", "vote")}
    assert [len(table) for table in by_method.values()] == [12, 13, 12]  # the reference has no difference from itself
    headers = [row for row in rows if row[0] == "method"]
    assert headers[0][1:] == ["three-way accuracy", "balanced accuracy", *headers[0][3:5], "mean AUC"]
    assert [cell.split()[0] for cell in by_method["xception"][0][1:]] == ["0.500", "0.500", "0.733", "0.833", "0.783"]
    low, high = measured["intervals"]["xception"]["mean.auc"]
    assert by_method["xception"][0][-1] == f"0.783 [{low:.3f}, {high:.3f}]"
    assert by_method["theirs"][0][1:3] == ["-", "-"]
    assert by_method["theirs"][-1][1:] == ["+0.000 [+0.000, +0.000]", "-"]
    values = [[cell.split()[0] for cell in row[1:]] for row in by_method["xception"][3:6]]
    assert values[0] == ["0.733", "0.700", "0.600", "0.600", "0.600"]
    assert [row[0] for row in values[1:]] == ["0.625", "0.625"]
    assert by_method["vote"][0][2:] == ["-"] * 4
    assert "## validation (8 images)" in text
    assert metrics_tables({}) == ""


def test_a_short_title_that_two_classes_share_is_the_long_one():
    classes = ("melanoma", "atypical_nevus", "common_nevus")
    measured = measure(LABELS, {"vote": PROBABILITIES}, None, 2, classes=classes)
    assert aligned_table(measured).split("\n")[0].split() == [
        *("mean", "AUC", "melanoma", "atypical_n", "common_nev", "accuracy")
    ]
