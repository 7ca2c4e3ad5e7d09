"""`evaluate.py`, run as a user would, and the tables it takes."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.classes import ISIC_2017 as CLASSES
from data.probabilities import read_scores
from data.tables import ID_COLUMNS
from tests.official_scorer import diagnoses
from tests.test_metrics import OFFICIAL
from tests.test_stages import fails
from utils.errors import InputError

IDS = [f"ISIC_{k:07d}" for k in range(40)]
LABELS, PROBABILITIES, SCORES = diagnoses()


@pytest.fixture
def folder(tmp_path):
    """Folder with labels, our table and another group's, each in an order of its own."""
    for name, values in (("labels", LABELS[:, :2]), ("ours", PROBABILITIES), ("theirs", SCORES)):
        table = pd.DataFrame(values, IDS, CLASSES[: values.shape[1]])
        table.sample(frac=1, random_state=len(name)).to_csv(tmp_path / f"{name}.csv", index_label="image_id")
    return tmp_path


@pytest.fixture
def evaluate(run_script, folder):
    """Function that runs the script on tables of the folder."""

    def run(*names, labels="labels.csv", options=()):
        return run_script("evaluate.py", *(folder / name for name in names), "--labels", folder / labels, *options)

    return run


def test_tables_are_scored_and_compared(evaluate, folder):
    options = ["--output", folder / "out", "--repetitions", 100, "--reference", "theirs"]
    result = evaluate("ours.csv", "theirs.csv", options=options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith((folder / "out" / "evaluation.md").read_text() + "\n")
    with Image.open(folder / "out" / "roc.png") as picture:
        assert min(picture.size) > 400
    measured = json.loads((folder / "out" / "evaluation.json").read_text())["labels"]
    assert measured["images"] == 40
    areas = {name: figures["mean.auc"] for name, figures in measured["methods"].items()}
    assert areas["theirs"] == pytest.approx(OFFICIAL["scores"]["macro_average"]["auc"])
    assert measured["methods"]["theirs"]["accuracy"] is None
    gain = measured["differences"]["ours"]["mean.auc"]
    assert gain["difference"] == pytest.approx(areas["ours"] - areas["theirs"])
    assert f"| ours | {gain['difference']:+.3f} [{gain['interval'][0]:+.3f}, " in result.stdout


def test_tables_of_one_stem_can_be_named(evaluate, folder):
    (folder / "other").mkdir()
    (folder / "other" / "ours.csv").write_bytes((folder / "ours.csv").read_bytes())
    tables, few = ("ours.csv", "other/ours.csv"), ["--repetitions", 20]
    result = evaluate(*tables, options=[*few, "--names", "before", "after", "--reference", "after"])
    assert result.returncode == 0, result.stderr
    assert "| before | +0.000" in result.stdout
    result = evaluate(*tables, options=[*few, "--names", "before"])
    assert result.returncode == 2
    assert "--names before: give one name to each of the 2 tables" in result.stderr
    assert "each once" in evaluate(*tables, options=[*few, "--names", "same", "same"]).stderr


def test_columns_may_come_from_a_table_that_names_files_but_not_from_one_of_other_images(evaluate, folder):
    for name, ids in (("dataset", IDS), ("others", [f"x{name}" for name in IDS])):
        rows = [f"images/{image_id}.jpg,{'mf'[k % 2]}\n" for k, image_id in enumerate(ids)]
        (folder / f"{name}.csv").write_text("image,sex\n" + "".join(rows))
    few = ["--repetitions", 20, "--by", "sex", "--columns"]
    result = evaluate("ours.csv", options=[*few, folder / "dataset.csv"])
    assert result.returncode == 0, result.stderr
    assert "by sex" in result.stdout
    assert "unknown" not in result.stdout
    assert fails(evaluate("ours.csv", options=[*few, folder / "others.csv"]), "has none of the labelled images")


def test_images_that_are_left_out_do_not_count(evaluate, folder):
    ours = pd.read_csv(folder / "ours.csv")
    ours[ours["image_id"] != IDS[0]].to_csv(folder / "ours.csv", index=False)  # it need not be there
    whole = evaluate("ours.csv", options=["--repetitions", 20, "--leave-out", *IDS[:5], "--output", folder / "out"])
    assert json.loads((folder / "out" / "evaluation.json").read_text())["labels"]["left_out"] == IDS[:5]
    assert whole.returncode == 0, whole.stderr
    for name in ("labels", "ours"):
        table = pd.read_csv(folder / f"{name}.csv")
        table[~table["image_id"].isin(IDS[:5])].to_csv(folder / f"{name}.csv", index=False)
    without = f"Without {', '.join(IDS[:5])}.\n\n"
    assert whole.stdout.endswith(without + evaluate("ours.csv", options=["--repetitions", 20]).stdout)
    assert fails(evaluate("ours.csv", options=["--leave-out", IDS[0]]), f"{IDS[0]}: ", "no such image")
    assert fails(evaluate("ours.csv", options=["--leave-out", *IDS[5:]]), "has no labelled image")


@pytest.mark.parametrize(
    "form", ["image", "image_name", "isic_id", "no header", "jpg", "Windows", "spaces", "no header, jpg, Windows"]
)
def test_every_form_of_the_challenge_table_is_read(folder, form):
    lines = (folder / "theirs.csv").read_text().splitlines()
    if form in ID_COLUMNS:
        lines[0] = lines[0].replace("image_id", form)
    if "no header" in form:
        lines = lines[1:]
    if "jpg" in form:
        lines = [line.replace(",", ".jpg,", 1) if line.startswith("ISIC") else line for line in lines]
    if "spaces" in form:
        lines = [line.replace(",", ", ") for line in lines]
    mark, end = ("\ufeff", "\r\n") if "Windows" in form else ("", "\n")
    (folder / "form.csv").write_bytes((mark + end.join([*lines, ""])).encode())
    np.testing.assert_array_equal(read_scores(folder / "form.csv", IDS, CLASSES), SCORES)


def test_classes_of_digits_are_a_header_and_unlabelled_images_may_be_there(tmp_path):
    (tmp_path / "table.csv").write_text("image_id,1,0\na,0.25,0.75\nb,0.5,0.5\n")
    found = read_scores(tmp_path / "table.csv", ["a"], ("1", "0"), others=["a", "b"])
    assert found.tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize(
    ("name", "old", "new", "named"),
    [
        pytest.param("theirs", "ISIC_0000003", "ISIC_0009999", "names ISIC_0009999", id="unknown image"),
        pytest.param("theirs", "ISIC_0000003,0.06,0.35\n", "", "no row for ISIC_0000003", id="lacking image"),
        pytest.param("theirs", "ISIC_0000003", "ISIC_0000004.jpg", "ISIC_0000004 twice", id="twice"),
        pytest.param("theirs", "0003,0.06", "0003,1.06", "outside 0 to 1 for ISIC_0000003", id="above 1"),
        pytest.param("theirs", "0003,0.06", "0003,-0.06", "outside 0 to 1 for ISIC_0000003", id="below 0"),
        pytest.param("theirs", "0003,0.06", "0003,nan", "empty cell for ISIC_0000003", id="nan"),
        pytest.param("theirs", "0003,0.06", "0003,high", "high", id="text"),
        pytest.param("theirs", "0003,0.06,0.35", "0003,0.06,0.35,0.59", "rows of 4 fields", id="long row"),
        pytest.param("theirs", "seborrheic_keratosis", "keratosis", "no column seborrheic_keratosis", id="column"),
        pytest.param(
            "theirs",
            "image_id,melanoma,seborrheic_keratosis\n",
            "image,MEL,SK\n",
            "no column melanoma, seborrheic_keratosis",
            id="other header",
        ),
        pytest.param("theirs", "image_id,mel", "name,mel", "no column image_id", id="no id"),
        pytest.param(
            "theirs",
            "seborrheic_keratosis\n",
            "seborrheic_keratosis\n0,",
            "rows of 4 fields for 3 columns",
            id="long first row",
        ),
        pytest.param("ours", "melanoma,seborrheic_keratosis", "melanoma,sk", "no column seborrheic", id="our column"),
        pytest.param("ours", "ISIC_0000003,0.", "ISIC_0000003,0.0", "not sum to 1 for ISIC_0000003", id="sum"),
    ],
)
def test_a_bad_table_is_refused_by_name(folder, name, old, new, named):
    text = (folder / f"{name}.csv").read_text()
    assert old in text
    (folder / "bad.csv").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"bad\.csv.*" + named) as error:
        read_scores(folder / "bad.csv", IDS, CLASSES)
    assert ": " in str(error.value).removeprefix(str(folder)), "no remedy"


def test_bad_input_ends_the_script_in_one_sentence(evaluate, folder):
    (folder / "short.csv").write_text("ISIC_0000001,0.5,0.5\n")
    assert fails(evaluate("ours.csv", "short.csv"), "short.csv", "no row for ISIC_0000000 (39 such images)")
    assert fails(evaluate("nowhere.csv"), "nowhere.csv is missing")
    assert fails(evaluate("ours.csv", labels="theirs.csv"), "theirs.csv", "0 and 1")
    (folder / "empty.csv").write_text("image_id,melanoma,seborrheic_keratosis\n")
    assert fails(evaluate("ours.csv", labels="empty.csv"), "empty.csv has no labelled image")
    assert fails(evaluate("ours.csv", options=["--reference", "mine"]), "--reference mine", "ours")
    assert fails(evaluate(), "at least one table")
    assert fails(evaluate("ours.csv", options=["--repetitions", 0]), "repetitions = 0: it must")
