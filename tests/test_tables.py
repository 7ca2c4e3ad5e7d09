"""Every way in which people save a table, and what has no one meaning."""

import gzip
import zipfile

import numpy as np
import pytest

from data.classes import ISIC_2017 as CLASSES
from data.official import label_rows
from data.probabilities import read_scores
from data.tables import read_cells, read_table
from utils.errors import InputError

IDS = ["ISIC_0000001", "ISIC_0000002"]
PLAIN = "image_id,melanoma,seborrheic_keratosis,nevus\nISIC_0000001,0.5,0.25,0.25\nISIC_0000002,0.125,0.125,0.75\n"
EXPECTED = [[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]
COMMAS = PLAIN.replace(",", ";").replace("0.", "0,")


def quoted(text, separator=","):
    return "\n".join(separator.join(f'"{cell}"' for cell in line.split(";")) for line in text.splitlines())


FORMS = {
    "as it is": PLAIN.encode(),
    "empty lines": f"\n\n  \n{PLAIN}\n\n".encode(),
    "rows of separators": f",,,\n{PLAIN},,,\n,,,\n".encode(),
    "separators behind each row": PLAIN.replace("\n", ",,\n").encode(),
    "spaces": PLAIN.replace(",", " , ").replace("\n", "\t \n").encode(),
    "no-break spaces": PLAIN.replace(",", "\u00a0,").encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "semicolons, decimal commas": COMMAS.encode(),
    "tabs, decimal commas": COMMAS.replace(";", "\t").encode(),
    "quotes, decimal commas": quoted(COMMAS).encode(),
    "semicolons, no header": COMMAS.partition("\n")[2].encode(),
    "semicolons, quotes": quoted(COMMAS, ";").encode(),
    "Excel's first line": f"sep=;\r\n{COMMAS}".encode(),
    "old Macintosh": PLAIN.replace("\n", "\r").encode(),
    "UTF-8 with its mark": PLAIN.encode("utf-8-sig"),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-16, tabs": COMMAS.replace(";", "\t").encode("utf-16"),
    "UTF-32": PLAIN.encode("utf-32"),
    "Latin-1": PLAIN.replace("nevus", "nevus,größe")
    .replace("25\n", "25,ä\n")
    .replace("75\n", "75,ü\n")
    .encode("latin-1"),
    "gzip": gzip.compress(PLAIN.encode(), mtime=0),
    "gzip, UTF-16": gzip.compress(COMMAS.encode("utf-16"), mtime=0),
    "upper case": PLAIN.replace("melanoma,seborrheic_keratosis,nevus", "Melanoma,Seborrheic Keratosis,NEVUS").encode(),
    "suffixes": PLAIN.replace("1,", "1.JPG,", 1).replace("2,", "2.png ,", 1).encode(),
    "another's name for the ids": PLAIN.replace("image_id", "isic_id").encode(),
    "ids twice alike": "\n".join(f"{row.partition(',')[0]},{row}" for row in PLAIN.splitlines())
    .replace("image_id", "image", 1)
    .encode(),
    "row numbers": "\n".join(f"{k},{row}" for k, row in zip(["", 0, 1], PLAIN.splitlines(), strict=True)).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_one_table_is_read_alike(tmp_path, form):
    (tmp_path / "table.csv").write_bytes(FORMS[form])
    np.testing.assert_array_equal(read_scores(tmp_path / "table.csv", IDS, CLASSES), EXPECTED)
    np.testing.assert_array_equal(read_scores(tmp_path / "table.csv", IDS[::-1], CLASSES), EXPECTED[::-1])


LABELS = "image_id,melanoma,seborrheic_keratosis\nISIC_0000001,1.0,0.0\nISIC_0000002,0.0,0.0\n"


@pytest.mark.parametrize(
    "content",
    [
        LABELS.replace(",", ";").replace(".0", ",0").encode(),
        LABELS.encode("utf-16"),
        gzip.compress(f"\n{LABELS},,\n".encode(), mtime=0),
        LABELS.replace("keratosis", "keratosis,nevus")
        .replace("0.0\n", "0.0,0\n", 1)
        .replace("0.0\n", "0.0,1\n")
        .encode(),
    ],
)
def test_labels_are_read_by_the_same_reader(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    np.testing.assert_array_equal(label_rows(tmp_path / "labels.csv"), [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param(PLAIN.replace("nevus", "melanoma").encode(), "column melanoma twice", id="twice"),
        pytest.param(PLAIN.replace("nevus", "Melanoma ").encode(), "column melanoma twice", id="twice but for case"),
        pytest.param(PLAIN.replace("nevus", "image_id").encode(), "column image_id twice", id="ids twice"),
        pytest.param(
            PLAIN.replace("nevus", "image").encode(), "two columns of ids, image_id and image, that", id="two ids"
        ),
        pytest.param(PLAIN.replace("0.", "0,").encode(), "rows of 7 fields for 4 columns", id="commas in commas"),
        pytest.param(COMMAS.replace("0,5;", "0.5;").encode(), "decimal commas and decimal points", id="both marks"),
        pytest.param(PLAIN.replace("0.25", '"0.25', 1).encode(), "cannot be read as a table", id="open quote"),
        pytest.param(PLAIN.encode("utf-16-le"), "UTF-16 without its mark", id="UTF-16 without its mark"),
        pytest.param(PLAIN.encode("utf-16")[:-1], "begins like UTF-16, but is invalid", id="half a character"),
        pytest.param(gzip.compress(PLAIN.encode(), mtime=0)[:-9], "cannot be read as a table", id="cut gzip"),
        pytest.param(b"\xd0\xcf\x11\xe0 and \0 more", "a spreadsheet or an archive", id="xls"),
        pytest.param(b"\n\n ;;\n", "is empty", id="nothing"),
        pytest.param(PLAIN.replace("0.5,", "1/2,").encode(), "is no number.*1/2", id="fraction"),
    ],
)
def test_what_has_no_one_meaning_is_refused_by_name(tmp_path, content, named):
    (tmp_path / "table.csv").write_bytes(content)
    for read in (
        lambda path: read_scores(path, IDS, CLASSES),
        lambda path: read_table(path, ["image_id", *CLASSES[:2]]),
        label_rows,
    ):
        with pytest.raises(InputError, match=rf"table\.csv .*{named}.*: "):
            read(tmp_path / "table.csv")


def test_a_zipped_table_is_called_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "table.csv", "w") as archive:
        archive.writestr("table.csv", PLAIN)
    with pytest.raises(InputError, match=r"is no text .*a spreadsheet or an archive"):
        read_cells(tmp_path / "table.csv", ["image_id"])


def test_texts_are_read_without_the_spaces_around_them(tmp_path):
    (tmp_path / "table.csv").write_text('lesion_id\tImage ID \t"dx "\nHAM_1\tISIC_1 \tmel \n')
    assert read_cells(tmp_path / "table.csv", ["image_id", "dx"])["dx"].to_dict() == {"ISIC_1": "mel"}


# ---- three probabilities or two scores -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decimals", "row"), [(2, "0.33,0.33,0.33"), (3, "0.333,0.333,0.333"), (4, "0.3333,0.3333,0.3333")]
)
def test_rounded_probabilities_sum_to_one_as_well_as_their_decimals_allow(tmp_path, decimals, row):
    other = ",".join(f"{value:.{decimals}f}" for value in (0.6, 0.2, 0.2))
    (tmp_path / "t.csv").write_text(f"image_id,melanoma,seborrheic_keratosis,nevus\n{IDS[0]},{row}\n{IDS[1]},{other}\n")
    np.testing.assert_array_equal(read_scores(tmp_path / "t.csv", IDS, CLASSES)[0], list(map(float, row.split(","))))
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("0.6", "0.5"))
    with pytest.raises(InputError, match="do not sum to 1 for ISIC_0000002"):
        read_scores(tmp_path / "t.csv", IDS, CLASSES)


@pytest.mark.parametrize("name", ["nv", "other", "benign nevi"])
def test_a_third_probability_under_another_name_is_refused(tmp_path, name):
    (tmp_path / "t.csv").write_text(PLAIN.replace("nevus", name))
    with pytest.raises(InputError, match=f"the third as {name.replace(' ', '_')}: call that column nevus"):
        read_scores(tmp_path / "t.csv", IDS, CLASSES)


def test_columns_that_are_passed_over_are_named(tmp_path, capsys):
    (tmp_path / "t.csv").write_text(PLAIN.replace("nevus", "age").replace("0.25\n", "60\n").replace("0.75\n", "70\n"))
    assert read_scores(tmp_path / "t.csv", IDS, CLASSES).shape == (2, 2)
    assert "ignored the columns age" in capsys.readouterr().err
