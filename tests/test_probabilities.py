import numpy as np
import pytest

from data.classes import ISIC_2017
from data.probabilities import read_probabilities, write_probabilities
from utils.errors import InputError

HEADER = "image_id,melanoma,seborrheic_keratosis,nevus\n"
IDS = ["ISIC_0000001", "ISIC_0000002"]
GOOD = "ISIC_0000001,0.2,0.3,0.5\n"


def softmax_rows(count):
    """Probabilities as a network gives them: float32, the sum of a row off by its rounding."""
    logits = np.random.default_rng(0).normal(0, 4, (count, 3))
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def test_round_trip_loses_no_bit(tmp_path):
    ids = [f"ISIC_{k:07d}" for k in range(500)]
    written = softmax_rows(500)
    write_probabilities(tmp_path / "new" / "p.csv", ids, written, ISIC_2017)
    read = read_probabilities(tmp_path / "new" / "p.csv", ids, ISIC_2017)
    exact = written.astype(np.float64)
    np.testing.assert_array_equal(read, exact / exact.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(read.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_written_table_is_the_one_of_the_contract(tmp_path):
    write_probabilities(tmp_path / "p.csv", IDS, np.array([[0.5, 0.25, 0.25], [1, 1, 2]]), ISIC_2017)
    expected = f"{HEADER}ISIC_0000001,0.5,0.25,0.25\nISIC_0000002,0.25,0.25,0.5\n"
    assert (tmp_path / "p.csv").read_text() == expected


def test_rows_are_joined_by_id_and_columns_by_name(tmp_path):
    (tmp_path / "p.csv").write_text(
        "nevus,image_id,melanoma,seborrheic_keratosis\n0.5,ISIC_0000002,0.125,0.375\n0,ISIC_0000001,1,0\n"
    )
    np.testing.assert_array_equal(
        read_probabilities(tmp_path / "p.csv", IDS, ISIC_2017), [[1, 0, 0], [0.125, 0.375, 0.5]]
    )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param(HEADER + GOOD, "ISIC_0000002", id="lacking row"),
        pytest.param(HEADER, "ISIC_0000001", id="no rows"),
        pytest.param(f"{HEADER}{GOOD}{GOOD.replace('1,', '2,')}{GOOD.replace('1,', '3,')}", "ISIC_0000003", id="extra"),
        pytest.param(f"{HEADER}{GOOD},0.2,0.3,0.5\n", "", id="empty id"),
        pytest.param(f"{HEADER}{GOOD}{GOOD}", "ISIC_0000001", id="twice"),
        pytest.param("image_id,melanoma,nevus\nISIC_0000001,0.5,0.5\n", "seborrheic_keratosis", id="missing column"),
        pytest.param(f"{HEADER}{GOOD}ISIC_0000002,-0.1,0.6,0.5\n", "", id="negative"),
        pytest.param(f"{HEADER}{GOOD}ISIC_0000002,0.2,0.2,0.5\n", "", id="sum of 0.9"),
        pytest.param(f"{HEADER}{GOOD}ISIC_0000002,3.1,-2.2,0.7\n", "", id="logits"),
        pytest.param(f"{HEADER}{GOOD}ISIC_0000002,,0.5,0.5\n", "ISIC_0000002", id="empty cell"),
        pytest.param(f"{HEADER}{GOOD}ISIC_0000002,nan,nan,nan\n", "ISIC_0000002", id="nan"),
        pytest.param(f"{HEADER}{GOOD}ISIC_0000002,inf,0,0\n", "", id="infinity"),
        pytest.param(f"{HEADER}{GOOD}ISIC_0000002,high,0.5,0.5\n", "high", id="text"),
        pytest.param("", "", id="empty file"),
    ],
)
def test_bad_table_is_refused_by_name(tmp_path, content, named):
    path = tmp_path / "xception_test.csv"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_probabilities(path, IDS, ISIC_2017)
    assert str(error.value).startswith(str(path))
    assert named in str(error.value).removeprefix(str(path))


def test_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"p\.csv is missing"):
        read_probabilities(tmp_path / "p.csv", IDS, ISIC_2017)
