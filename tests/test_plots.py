import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from data.classes import ISIC_2017
from evaluation.plots import curves, save


def test_many_methods_have_a_line_of_their_own_each_and_a_legend_that_is_not_cut_off(tmp_path):
    labels = np.eye(3)[np.arange(12) % 3]
    figure = curves("roc", labels, {name: labels for name in (*map(str, range(14)), "mean", "vote")}, classes=ISIC_2017)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 1 + 16
    save(figure, tmp_path / "roc.png")
    picture = cv2.imread(str(tmp_path / "roc.png"), cv2.IMREAD_GRAYSCALE)
    assert len(picture) > figure.get_size_inches()[1] * 120, "the legend does not fit into the figure"
    assert (picture[-5:] > 200).all()


def test_a_legend_has_every_name_as_it_is(tmp_path):
    labels = np.eye(3)[np.arange(12) % 3]
    names = ["_ours", r"x$\foo$", "\udcff"]
    figure = curves("roc", labels, dict.fromkeys(names, labels), classes=ISIC_2017)
    save(figure, tmp_path / "roc.png")
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["_ours 1.000", r"x$\foo$ 1.000", r"\udcff 1.000"]


@pytest.mark.parametrize("digits", [1, 8])
def test_curves_and_their_areas_are_those_of_scikit_learn(digits):
    generator = np.random.default_rng(0)
    labels = np.eye(3)[np.arange(60) % 3]
    scores = (0.7 * generator.dirichlet(np.ones(3), 60) + 0.3 * labels).round(digits)
    roc, precision_recall = (
        curves(kind, labels, {"vote": scores}, classes=ISIC_2017) for kind in ("roc", "precision_recall")
    )
    for k in range(2):
        truth = labels[:, k]
        line = roc.axes[k].lines[-1]
        assert line.get_label() == f"vote {roc_auc_score(truth, scores[:, k]):.3f}"
        x, y, _ = roc_curve(truth, scores[:, k], drop_intermediate=False)
        np.testing.assert_allclose(line.get_xydata(), np.stack([x, y], axis=1))
        line = precision_recall.axes[k].lines[-1]
        assert line.get_label() == f"vote {average_precision_score(truth, scores[:, k]):.3f}"
        precision, recall, _ = precision_recall_curve(truth, scores[:, k])
        highest = {}
        for x, y in zip(recall, precision, strict=True):
            highest[x] = max(y, highest.get(x, 0))  # of one recall, the first threshold has the highest precision
        np.testing.assert_allclose(line.get_xydata(), sorted(highest.items()))
