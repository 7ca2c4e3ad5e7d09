"""A data set with `dataset.csv`: what is read, what is refused, and the split that is drawn."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from config import PRESETS
from data.classes import ISIC_2017, in_order, tasks_of
from data.dataset import MADE_SPLIT, FurtherImages, ListedImages, open_data_set, read_truth
from data.images import write_image
from data.official import OfficialFolders
from pipeline import checks, inputs
from pipeline.data_sets import label_files
from utils.errors import InputError

ROWS = [
    *("images/a.jpg,nevus,training,masks/a.png,l1,f,40", "images/b.png,melanoma,training,,l1,m,50"),
    *("images/c.bmp,Nevus ,validation,,,f,60", "images/d.tif,melanoma,test,,,,", "images/e 1.webp,,test,,,m,"),
]


@pytest.fixture
def folder(tmp_path):
    """Five images in five formats, of two classes."""
    for k, row in enumerate(ROWS):
        path = tmp_path / row.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 3:9] = 255
    write_image(tmp_path / "masks/a.png", mask)
    return tmp_path


def write(folder, rows=ROWS, header="image,label,split,mask,group,sex,age", separator=",", encoding="utf-8"):
    text = "\n".join([header, *rows]).replace(",", separator)
    (folder / "dataset.csv").write_bytes(text.encode(encoding, "surrogateescape"))


@pytest.mark.parametrize("form", [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16"), (" , ", "utf-8-sig")])
def test_a_table_is_read_whatever_its_form(folder, form):
    write(folder, separator=form[0], encoding=form[1], header="Image,LABEL,Split,Mask,Group,sex,age")
    data_set = open_data_set(folder)
    assert data_set.classes == ("melanoma", "nevus")
    assert data_set.images("training") == {"a": folder / "images/a.jpg", "b": folder / "images/b.png"}
    assert data_set.labels("training", ["b", "a"]).tolist() == [[1, 0], [0, 1]]
    assert data_set.labels("test", ["d", "e 1"]).tolist() == [[1, 0], [0, 0]]
    assert data_set.masks("training", ["b", "a"]) == {"a": folder / "masks/a.png"}
    assert data_set.groups("training") == {"a": "l1", "b": "l1"}
    assert data_set.columns("training")[0].to_dict("index") == {
        "a": {"sex": "f", "age": "40"},
        "b": {"sex": "m", "age": "50"},
    }


def test_both_layouts_have_the_same_methods(tiny_sample):
    for name in dir(OfficialFolders):
        assert hasattr(ListedImages, name) or name == "classes", name


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (",nevus,training", "row 6 of .*names no image"),
        (
            "images/a.png,nevus,training",
            r"row 6 of .*images/a.png nevus training\) has the same id",
        ),
        ("images/a.jpg.png,nevus,training", "row 6 of .*has two suffixes, or a space at an end of its name: rename it"),
        ("images/f .png,nevus,training", "row 6 of .*has two suffixes, or a space at an end of its name: rename it"),
        ("f.jpg,nevus,trian", "row 6 of .*has a split that is none of training, validation, test"),
        ("f.jpg,wart,test", "row 6 of .*has a label that no training image has"),
        ("f.jpg,suspect,training", "row 6 of .*has a label that no class can have"),
        ("f.jpg,isic_id,training", "row 6 of .*has a label that no class can have"),
        ("f.jpg,mean,training", "row 6 of .*has a label that no class can have"),
        ("f.jpg,nevus,training,,,,,,9", "rows of 9 fields"),
    ],
)
def test_a_fault_of_the_table_is_one_sentence_that_names_the_row(folder, row, named):
    write(folder, [*ROWS, row])
    with pytest.raises(InputError, match=named):
        open_data_set(folder)


def test_a_table_without_images_or_with_one_class_is_refused(folder):
    write(folder, header="path,label,split,mask,group,sex,age")
    with pytest.raises(InputError, match=r"no column image"):
        open_data_set(folder)
    write(folder, [])
    with pytest.raises(InputError, match=r"dataset.csv lists no image"):
        open_data_set(folder)
    write(folder, ROWS[:1])
    with pytest.raises(InputError, match=r"has one class, nevus: a classifier needs two"):
        open_data_set(folder)
    write(folder, ROWS[:3])
    with pytest.raises(InputError, match=r"no image of the test split: add some, or leave it out with --splits"):
        open_data_set(folder).images("test")
    with pytest.raises(InputError, match=r"names no mask of the validation split: .*--unet FILE.*--masks none"):
        open_data_set(folder).masks("validation", ["c"])


@pytest.mark.parametrize("name", ["Bild für zwei.jpg", "a;b.jpg", os.fsdecode(b"caf\xe9.jpg"), "u\u0308.jpg"])
def test_any_file_name_is_taken(folder, name):
    shutil.copy(folder / "images/a.jpg", folder / name)
    typed = "\u00fc.jpg" if name == "u\u0308.jpg" else name
    write(folder, [*ROWS, f'"{typed}",nevus,training'])
    assert folder / name in open_data_set(folder).images("training").values()


def settings(folder):
    return replace(PRESETS["sample"], data_dir=folder, run_dir=folder / "run")


def test_a_table_in_latin_1_is_read_as_text(folder):
    shutil.copy(folder / "images/b.png", folder / "images/läsion.png")
    write(folder, [*ROWS, "images/läsion.png,Mélanome,training,,,männlich,"], encoding="latin-1")
    data_set = open_data_set(folder)
    assert data_set.classes == ("melanoma", "mélanome", "nevus")
    assert data_set.images("training")["läsion"].exists()
    assert data_set.columns("training")[0].loc["läsion", "sex"] == "männlich"


def test_a_split_that_cannot_be_kept_is_asked_for(folder, monkeypatch):
    def full(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("data.dataset.write_table", full)
    write(folder, [f"{k}.jpg,{('nevus', 'melanoma')[k % 2]}" for k in range(20)], header="image,label")
    with pytest.raises(
        InputError, match=r"dataset_split.csv cannot be written .*: add a column split to .*dataset.csv"
    ):
        open_data_set(folder)


def test_a_missing_image_is_named_with_its_row_and_can_be_left_out(folder):
    write(folder, [*ROWS, "images/none.jpg,nevus,training"])
    with pytest.raises(InputError, match=r"row 6 of .* names .*images/none.jpg, which is missing"):
        inputs.images(settings(folder), "training")
    found, _ = inputs.images(replace(settings(folder), skip_bad_images=True), "training")
    assert list(found) == ["a", "b"]


def test_masks_of_another_size_or_drawn_on_the_stored_pixels_are_named(folder):
    write(folder)
    image = Image.open(folder / "images/a.jpg")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "images/a.jpg", exif=exif)
    config = settings(folder)
    _, sizes = inputs.images(config, "training")
    assert sizes["a"] == (16, 12)
    with pytest.raises(InputError, match=r"masks/a.png is 16x12 pixels, its image 12x16"):
        inputs.masks(config, "training", sizes)
    write_image(folder / "masks/a.png", np.full((5, 5), 255, np.uint8))
    with pytest.raises(InputError, match=r"masks/a.png is 5x5 pixels, its image 12x16"):
        inputs.masks(config, "training", sizes)


def test_a_training_split_of_empty_masks_is_refused(folder):
    write(folder)
    write_image(folder / "masks/a.png", np.zeros((12, 16), np.uint8))
    with pytest.raises(InputError, match=r"1 of 1 training masks, .*a.png first, are empty"):
        inputs.masks(settings(folder), "training", inputs.images(settings(folder), "training")[1])


def many(count=60):
    """Rows of images in groups of two, of three classes of different size."""
    return [f"images/{k}.jpg,{('nv', 'nv', 'mel', 'bkl')[k // 2 % 4]},g{k // 2}" for k in range(count)]


def test_a_split_is_drawn_once_and_keeps_groups_together(folder):
    write(folder, many(), "image,label,group")
    rows = open_data_set(folder, seed=3).rows
    shares = rows["split"].value_counts(normalize=True)
    assert shares["validation"] == pytest.approx(0.1, abs=0.05)
    assert shares["test"] == pytest.approx(0.2, abs=0.07)
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert set(rows["label"][rows["split"] == "test"]) == {"nv", "mel", "bkl"}
    before = (folder / MADE_SPLIT).read_bytes()
    assert open_data_set(folder, seed=4).rows["split"].equals(rows["split"])
    assert (folder / MADE_SPLIT).read_bytes() == before
    write(folder, [*many(), "images/new.jpg,nv,g99"], "image,label,group")
    with pytest.raises(InputError, match=r"row 61 of .*is not in .*dataset_split.csv: add it there, or remove"):
        open_data_set(folder)
    (folder / MADE_SPLIT).unlink()
    write(folder, many(8), "image,label,group")
    with pytest.raises(InputError, match=r"4 images or groups are too few"):
        open_data_set(folder)


def test_one_group_in_two_splits_is_refused_or_let_pass(folder, capsys):
    write(folder, [row.replace("validation,,", "validation,,l1") for row in ROWS])
    config = settings(folder)
    with pytest.raises(InputError, match=r"a.jpg \(training\) and .*c.bmp \(validation\) are of one group"):
        checks.check_splits(config)
    checks.check_splits(replace(config, allow_duplicates=True))
    assert "1 pictures are in two splits" in capsys.readouterr().out


def test_all_further_images_of_a_table_are_used_whatever_their_split_and_class(folder, tmp_path):
    write(folder, [row.replace(",nevus,", ",melanoma,").replace("Nevus ", "melanoma") for row in ROWS])
    further = FurtherImages(folder, ISIC_2017)
    assert list(further.images("extra")) == ["a", "b", "c", "d"]
    assert further.left_out == {"without a label": 1}
    write(folder, ["images/a.jpg,melanoma", "images/b.png,nevus"], header="image,label")
    assert list(FurtherImages(folder, ISIC_2017).images("extra")) == ["a", "b"]
    assert not (folder / MADE_SPLIT).exists(), "a split was drawn"


def test_a_further_image_of_a_patient_of_the_test_split_is_refused(folder, tmp_path):
    write(folder, [row.replace("test,,,", "test,,l9,") for row in ROWS])
    noise = np.random.default_rng(9).integers(0, 256, (9, 9, 3), np.uint8)
    write_image(tmp_path / "further/images/z.png", noise)
    write(tmp_path / "further", ["images/z.png,nevus,l9"], header="image,label,group")
    config = replace(settings(folder), extra_data_dir=tmp_path / "further")
    with pytest.raises(InputError, match=r"d.tif \(test\) and .*z.png \(extra\) are of one group"):
        checks.check_splits(config)


def test_a_downsampled_copy_has_the_id_of_its_image(folder):
    write(folder, [*ROWS[:4], "images/a_downsampled.png,nevus,test"])
    write_image(folder / "images/a_downsampled.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"a.jpg \(training\) and .*a_downsampled.png \(test\) have the same id"):
        checks.check_splits(settings(folder))


def test_another_column_changes_no_file_of_labels(folder):
    write(folder)
    (file,) = label_files(settings(folder), "training")
    before = file.read_text(), file.stat().st_mtime_ns
    write(folder, [row.replace(",40", ",41") for row in ROWS])
    assert label_files(settings(folder), "training") == [file]
    assert (file.read_text(), file.stat().st_mtime_ns) == before
    write(
        folder, [row.replace("b.png,melanoma", "b.png,nevus").replace("a.jpg,nevus", "a.jpg,melanoma") for row in ROWS]
    )
    label_files(settings(folder), "training")
    assert file.read_text() != before[0]


def test_classes_and_tasks():
    assert in_order(["nevus", "seborrheic_keratosis", "melanoma"]) == ISIC_2017
    assert tasks_of(ISIC_2017) == ("melanoma", "seborrheic_keratosis")
    assert in_order(["benign", "malignant"]) == ("malignant", "benign")
    assert in_order(["melanoma", "nevus"]) == ("melanoma", "nevus")
    assert in_order(["0", "1"]) == ("1", "0")
    assert tasks_of(("1", "0")) == ("1",)
    assert tasks_of(in_order("cab")) == ("a", "b", "c")


def test_a_further_column_may_have_any_name(folder):
    write(folder, header="image,label,split,mask,group,path,row")
    assert open_data_set(folder).columns("training")[0].loc["a"].to_dict() == {"path": "f", "row": "40"}
    assert open_data_set(folder).images("training")["a"] == folder / "images/a.jpg"


def test_groups_are_listed_in_the_order_of_the_images(folder, tiny_sample):
    write(folder)
    data_set = open_data_set(folder)
    assert data_set.groups_of("training", ["b", "a"]) == ["l1", "l1"]
    assert data_set.groups_of("test", ["d"]) is None
    write(folder, [ROWS[0], ROWS[1].replace("l1", ""), *ROWS[2:]])
    assert open_data_set(folder).groups_of("training", ["b", "a"]) == ["", "l1"]
    assert open_data_set(tiny_sample).groups_of("training", ["a"]) is None


def test_truth_is_read_from_each_kind_of_table(folder):
    write(folder)
    classes, labels, columns = read_truth(folder / "dataset.csv", "test")
    assert classes == ("melanoma", "nevus")
    assert labels.to_dict("index") == {"d": {"melanoma": 1, "nevus": 0}, "e 1": {"melanoma": 0, "nevus": 0}}
    assert list(columns) == ["image", "group", "sex", "age"]
    write(folder, [row.replace("training", "test") for row in ROWS[:2]])  # of another hospital: no training images
    assert read_truth(folder / "dataset.csv")[1].to_dict("list") == {"melanoma": [0, 1], "nevus": [1, 0]}
    write(folder, ["images/a.jpg,nevus", "images/b.png,melanoma"], header="image,label")
    assert len(read_truth(folder / "dataset.csv")[1]) == 2
    assert not (folder / MADE_SPLIT).exists(), "a split was drawn only to score"
    pd.DataFrame({"image": ["x.jpg", "y"], "MEL": [1.0, 0.0], "NV": [0.0, 1.0], "age": [40, 50]}).to_csv(
        folder / "hot.csv", index=False
    )
    classes, labels, columns = read_truth(folder / "hot.csv")
    assert (classes, labels.loc["x"].tolist(), columns["age"]["y"]) == (("mel", "nv"), [1, 0], "50")
    for header, names in {
        "melanoma,nevus": ("melanoma", "nevus"),
        "melanoma,seborrheic_keratosis": ISIC_2017,
        "basal_cell_carcinoma,seborrheic_keratosis,nevus,melanoma": (
            *("basal_cell_carcinoma", "melanoma", "nevus", "seborrheic_keratosis"),
        ),
    }.items():
        zeros = ",0" * (header.count(",") - 1)  # between the two classes that occur
        (folder / "hot.csv").write_text(f"image,{header}\nx,1,0{zeros}\ny,0{zeros},1\n")
        assert read_truth(folder / "hot.csv")[0] == names
    (folder / "hot.csv").write_text("image,melanoma,seborrheic_keratosis,nevus,excluded\nx,1,0,0,0\ny,0,0,1,0\n")
    assert read_truth(folder / "hot.csv")[0] == ISIC_2017
    with pytest.raises(InputError, match=r"hot.csv has no splits: leave out --split"):
        read_truth(folder / "hot.csv", "test")
    (folder / "bad.csv").write_text("image,a,b\nx,1,1\n")
    with pytest.raises(InputError, match=r"needs one column of 0 and 1 for each class"):
        read_truth(folder / "bad.csv")
