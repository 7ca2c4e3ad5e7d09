"""evaluation/diagnoses.py: the page of what predict.py wrote."""

import re

import pytest

from evaluation.diagnoses import Settings, main
from utils.errors import InputError


def test_the_page_shows_the_most_suspect_image_first_and_escapes_names(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "b%.png").touch()
    head = "file,melanoma,nevus,mean_melanoma,mean_nevus,suspect,decision,image_id"
    lines = [head, "x/a.jpg,0.1,0.9,0.9,0.1,no,nevus,a", "x/<b>.jpg,0.8,0.2,0.2,0.8,yes,melanoma,b%"]
    (tmp_path / "predictions.csv").write_text("\n".join(lines))
    main(Settings(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert re.findall("<h2>(.*)</h2>", page) == ["&lt;b&gt;.jpg", "a.jpg"]
    assert re.findall('<img src="(.*?)"', page) == ["pictures/b%25.png"]
    assert "melanoma 0.800; decision: melanoma; suspect: yes" in page
    assert f"open {(tmp_path / 'index.html').as_uri()} in a browser" in capsys.readouterr().out


def test_the_page_is_about_the_positive_class_of_the_table(tmp_path):
    rows = ["a.jpg,0.9,0.1,0.9,0.1,x,a", "b.jpg,0.2,0.8,0.2,0.8,x,b"]
    # malignant is a name of the positive class; of other names the first column is that class
    for classes, positive, order in (
        (("benign", "malignant"), "malignant", ["b.jpg", "a.jpg"]),
        (("grade_3", "grade_2"), "grade 3", ["a.jpg", "b.jpg"]),
    ):
        head = ",".join(["file", *classes, *(f"mean_{name}" for name in classes), "decision", "image_id"])
        (tmp_path / "predictions.csv").write_text("\n".join([head, *rows]))
        main(Settings(tmp_path))
        page = (tmp_path / "index.html").read_text()
        assert re.findall("<h2>(.*)</h2>", page) == order
        assert f"the highest output for {positive} first" in page


def test_names_and_classes_may_be_digits(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "001.png").touch()
    rows = [
        "file,1,0,mean_1,mean_0,decision,image_id",
        "002.jpg,9e-2,0.91,9e-2,0.91,0,002",
        "001.jpg,0.8,0.2,0.8,0.2,1,001",
    ]
    (tmp_path / "predictions.csv").write_text("\n".join(rows))
    main(Settings(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert re.findall("<h2>(.*)</h2>", page) == ["001.jpg", "002.jpg"]
    assert re.findall('<img src="(.*?)"', page) == ["pictures/001.png"]


@pytest.mark.parametrize("content", [None, "", "file,decision\nx,nevus\n", "file,melanoma\nx,1\n"])
def test_a_folder_without_a_table_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "predictions.csv").write_text(content)
    with pytest.raises(InputError, match=r"predictions.csv is no table of predict.py .*python predict.py"):
        main(Settings(tmp_path))
    assert not (tmp_path / "index.html").exists()
