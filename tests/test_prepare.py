"""Public data sets as they come, built small, and smaller copies of data sets."""

import zlib

import numpy as np
import pytest
from PIL import Image

from data.dataset import PATH, open_data_set
from data.images import read_image, read_mask, read_square, resize, write_image
from data.official import OfficialFolders
from data.prepare import prepare, squash
from utils.errors import InputError

COUNT = 40
ONE_HOT = {
    "isic2018": ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    "isic2019": ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"),
}


def image(folder, name):
    """Write a picture of its own."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def one_hot(names, k, count=None):
    return ",".join("1.0" if k % (count or len(names)) == n else "0.0" for n in range(len(names)))


def ham10000(folder):
    folder.mkdir(exist_ok=True)
    rows = [f"HAM_{k // 2},ISIC_{k:07d},{('nv', 'mel', 'bkl')[k // 2 % 3]},histo,{k},male,back" for k in range(COUNT)]
    text = "\n".join(["lesion_id,image_id,dx,dx_type,age,sex,localization", *rows])
    (folder / "HAM10000_metadata.tab").write_text(text.replace(",", "\t"))
    for k in range(COUNT):
        image(folder, f"ham10000_images_part_{1 + k % 2}/ISIC_{k:07d}.jpg")
    return {"nv", "mel", "bkl"}


def isic2016(folder):
    for split, ids in (("Training", range(30)), ("Test", range(30, COUNT))):
        labels = ("benign", "malignant") if split == "Training" else ("0.0", "1.0")
        rows = [f"ISIC_{k:07d},{labels[k % 2]}" for k in ids]
        (folder / f"ISBI2016_ISIC_Part3_{split}_GroundTruth.csv").write_text("\n".join(rows))
        for k in ids:
            image(folder, f"ISBI2016_ISIC_Part3_{split}_Data/ISIC_{k:07d}.jpg")
            image(folder, f"ISBI2016_ISIC_Part1_{split}_GroundTruth/ISIC_{k:07d}_Segmentation.png")
    return {"benign", "malignant"}


def isic2018(folder):
    names = ONE_HOT["isic2018"]
    for split, ids in (("Training", range(28)), ("Validation", range(28, 35)), ("Test", range(35, COUNT))):
        inner = folder / f"ISIC2018_Task3_{split}_GroundTruth"
        inner.mkdir()
        rows = [f"ISIC_{k:07d},{one_hot(names, k)}" for k in ids]
        (inner / f"ISIC2018_Task3_{split}_GroundTruth.csv").write_text("\n".join([f"image,{','.join(names)}", *rows]))
        for k in ids:
            image(folder, f"ISIC2018_Task3_{split}_Input/ISIC_{k:07d}.jpg")
    rows = [f"ISIC_{k:07d},HAM_{k // 2},histopathology" for k in range(28)]
    (folder / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(
        "\n".join(["image,lesion_id,diagnosis_confirm_type", *rows])
    )
    return {name.lower() for name in names}


def isic2019(folder):
    names = ONE_HOT["isic2019"]
    ids = [f"ISIC_{k:07d}{'_downsampled' * (k % 2)}" for k in range(COUNT)]
    rows = [f"{image_id},{one_hot(names, k, 8)}" for k, image_id in enumerate(ids)]
    (folder / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join([f"image,{','.join(names)}", *rows]))
    rows = [f"{image_id},{30 + k},anterior torso,BCN_{k // 2},female" for k, image_id in enumerate(ids)]
    (folder / "ISIC_2019_Training_Metadata.csv").write_text(
        "\n".join(["image,age_approx,anatom_site_general,lesion_id,sex", *rows])
    )
    (folder / "ISIC_2019_Test_Metadata.csv").write_text("image,age_approx,anatom_site_general,sex\nISIC_9,50,,male\n")
    image(folder, "ISIC_2019_Test_Input/ISIC_9.jpg")
    for image_id in ids:
        image(folder, f"ISIC_2019_Training_Input/ISIC_2019_Training_Input/{image_id}.jpg")
    return {name.lower() for name in names[:-1]}


def isic2020(folder):
    header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    rows = [
        f"ISIC_{k:07d},IP_{k // 2},male,{k},torso,unknown,{('benign', 'malignant')[k // 2 % 2]},{k // 2 % 2}"
        for k in range(COUNT)
    ]
    (folder / "train.csv").write_text("\n".join([header, *rows]))
    # Its columns have other names than those of the training table.
    test = "image,patient,age_approx,anatom_site_general,sex\nISIC_9,IP_99,50,head,male\n"
    (folder / "ISIC_2020_Test_Metadata.csv").write_text(test)
    image(folder, "jpeg/test/ISIC_9.jpg")
    for k in range(COUNT):
        image(folder, f"jpeg/train/ISIC_{k:07d}.jpg")
    return {"benign", "malignant"}


def ph2(folder):
    rows = [f"|| IMD{k:03d} || || {k % 3} || 0 || T || 1 2 ||" for k in range(COUNT)]
    head = "|| Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry || Pigment Network || Colors ||"
    (folder / "PH2_dataset.txt").write_text("\n".join([head, *rows, "", "Legends:", "0 - Common Nevus"]))
    for k in range(COUNT):
        inner = folder / "PH2 Dataset images" / f"IMD{k:03d}"
        image(inner, f"IMD{k:03d}_Dermoscopic_Image/IMD{k:03d}.bmp")
        image(inner, f"IMD{k:03d}_lesion/IMD{k:03d}_lesion.bmp")
    return {"common_nevus", "atypical_nevus", "melanoma"}


LAYOUTS = (ham10000, isic2016, isic2018, isic2019, isic2020, ph2)


@pytest.mark.parametrize("build", LAYOUTS, ids=lambda build: build.__name__)
def test_a_public_set_is_prepared_as_it_comes(tmp_path, build):
    folder = tmp_path / "data"
    folder.mkdir()
    classes = build(folder)
    prepare(build.__name__, folder, output=tmp_path / "table")
    data_set = open_data_set(tmp_path / "table")
    assert set(data_set.classes) == classes
    ids = [image_id for split in ("training", "validation", "test") for image_id in data_set.images(split)]
    assert len(ids) == len(set(ids)) == COUNT + (build in (isic2019, isic2020)) * 1
    rows = data_set.rows
    assert all(path.is_file() for path in rows[PATH])
    if build in (ham10000, isic2018, isic2019, isic2020):
        grouped = rows[rows["group"] != ""]
        assert len(grouped) >= 28
        assert (grouped.groupby("group")["split"].nunique() == 1).all()
    if build in (isic2019, isic2020):
        assert list(data_set.images("test")) == ["ISIC_9"]
        assert data_set.labels("test", ["ISIC_9"]) is None
        assert (rows["age"]["ISIC_9"], rows["sex"]["ISIC_9"]) == ("50", "male")
    if build is isic2020:
        assert rows["group"]["ISIC_9"] == "IP_99"
        assert set(rows["site"]) == {"torso", "head"}
    if build in (isic2016, ph2):
        assert len(data_set.masks("training", data_set.images("training"))) == len(data_set.images("training"))
    if build is isic2016:
        assert data_set.classes == ("malignant", "benign")
        assert data_set.labels("test", ["ISIC_0000030", "ISIC_0000031"]).tolist() == [[0, 1], [1, 0]]
        assert set(data_set.images("test")) == {f"ISIC_{k:07d}" for k in range(30, COUNT)}
    if build is isic2018:
        assert rows["split"].value_counts().to_dict() == {"training": 28, "validation": 7, "test": 5}


def test_a_table_that_was_edited_is_not_written_over(tmp_path):
    ham10000(tmp_path)
    for _ in range(2):
        prepare("ham10000", tmp_path)
    with open(tmp_path / "dataset.csv", "a") as file:
        file.write("another.jpg\n")
    with pytest.raises(InputError, match=r"dataset.csv is there already, with other rows: move it away"):
        prepare("ham10000", tmp_path)


def test_links_to_folders_are_followed(tmp_path):
    ham10000(tmp_path / "store")
    (tmp_path / "set").mkdir()
    for path in (tmp_path / "store").iterdir():
        (tmp_path / "set" / path.name).symlink_to(path)
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "tables").symlink_to(tmp_path / "far/away")
    prepare("ham10000", tmp_path / "set", output=tmp_path / "tables/ham")
    assert all(path.is_file() for path in open_data_set(tmp_path / "tables/ham").rows[PATH])


def test_rows_of_another_form_are_one_sentence(tmp_path):
    ph2(tmp_path)
    (tmp_path / "PH2_dataset.txt").rename(tmp_path / "of text")
    (tmp_path / "PH2_dataset.csv").write_text("Name,Clinical Diagnosis\nIMD001,0\n")
    with pytest.raises(InputError, match=r"PH2_dataset.csv has no row like .*: take PH2_dataset.txt"):
        prepare("ph2", tmp_path)
    (tmp_path / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv").write_text("ISIC_1\n")
    with pytest.raises(InputError, match=r"has the label '' of ISIC_1: correct that row"):
        prepare("isic2016", tmp_path)


def test_faults_of_a_public_set_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"holds no table of ham10000"):
        prepare("ham10000", tmp_path)
    with pytest.raises(InputError, match=r"none is missing: name the folder"):
        prepare("ph2", tmp_path / "none")
    ham10000(tmp_path)
    next(tmp_path.glob("*/ISIC_0000007.jpg")).unlink()
    with pytest.raises(InputError, match=r"lacks the image ISIC_0000007 \(1 of 40\): unpack all archives"):
        prepare("ham10000", tmp_path)
    assert not (tmp_path / "dataset.csv").exists()


@pytest.fixture
def large(tmp_path):
    """A data set of the official layout with one large image and its mask in each split."""
    yy, xx = np.mgrid[0:600, 0:800]
    for number, (split, name) in enumerate((("Training", "a"), ("Validation", "b"), ("Test_v2", "c"))):
        picture = np.stack([yy / 3, xx / 4, 40 * np.sin(xx / 30) + 120 + number], axis=-1).astype(np.uint8)
        write_image(tmp_path / f"large/ISIC-2017_{split}_Data/{name}.jpg", picture)
        mask = (np.hypot(yy - 300, xx - 380) < 170).astype(np.uint8) * 255
        write_image(tmp_path / f"large/ISIC-2017_{split}_Part1_GroundTruth/{name}_segmentation.png", mask)
        (tmp_path / f"large/ISIC-2017_{split}_Part3_GroundTruth.csv").write_text(
            f"image_id,melanoma,seborrheic_keratosis\n{name},1,0\n"
        )
    return tmp_path / "large"


def test_a_squashed_copy_is_what_the_large_files_are_read_as(large, tmp_path, capsys):
    squash(large, tmp_path / "small", side=64)
    assert "wrote 3 images and 3 masks of 64x64 pixels" in capsys.readouterr().out
    copy, original = OfficialFolders(tmp_path / "small"), OfficialFolders(large)
    for split, name in (("training", "a"), ("validation", "b"), ("test", "c")):
        small, path = read_image(copy.images(split)[name]), original.images(split)[name]
        np.testing.assert_array_equal(small, read_square(path, 64))
        assert np.abs(small.astype(float) - resize(read_image(path), 64, 64)).mean() < 1
        mask, true = (read_mask(of.masks(split, [name])[name]) > 0 for of in (copy, original))
        assert mask.mean() == pytest.approx(true.mean(), abs=0.01)
        np.testing.assert_array_equal(copy.labels(split, [name]), original.labels(split, [name]))


def test_squashed_tables_are_found_in_nested_folders_and_any_encoding(large, tmp_path):
    folder = large / "ISIC-2017_Training_Data"
    folder.rename(large / "outer")
    folder.mkdir()
    (large / "outer").rename(folder / folder.name)
    metadata = "image_id,age_approximate,sex\na,40,femme âgée\n".encode("latin-1")
    (folder / folder.name / f"{folder.name}_metadata.csv").write_bytes(metadata)
    squash(large, tmp_path / "small", side=8)
    columns, _ = OfficialFolders(tmp_path / "small").columns("training")
    assert columns.loc["a", "age_approximate"] == "40"


def test_sizes_seeds_and_threads_out_of_bounds_are_refused(large, tmp_path):
    for options in ({"side": 0}, {"workers": 0}):
        with pytest.raises(InputError, match="both must be at least 1"):
            squash(large, tmp_path / "small", **options)
    with pytest.raises(InputError, match="--seed -1"):
        prepare("ph2", tmp_path, seed=-1)


def test_squashing_goes_on_where_it_stopped(large, tmp_path):
    squash(large, tmp_path / "small", side=64)
    files = sorted((tmp_path / "small").rglob("*.png"))
    before = {path: path.stat().st_mtime_ns for path in files}
    files[0].unlink()
    squash(large, tmp_path / "small", side=64)
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == files[:1]
    squash(large, tmp_path / "small", side=32)
    assert {read_image(path).shape for path in files} == {(32, 32, 3)}
    (mask,) = large.glob("*Training*/a_segmentation.png")
    write_image(mask, np.zeros((600, 800), np.uint8))
    files[0].write_bytes(b"")
    squash(large, tmp_path / "small", side=32)
    assert files[0].stat().st_size, "an empty copy is made again"
    copies = OfficialFolders(tmp_path / "small")
    assert not read_mask(copies.masks("training", ["a"])["a"]).any(), "and that of a mask that was corrected"
    next(large.glob("*Test*/c.jpg")).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"c.jpg .*\(1 such files; all others are in .*other\), then run"):
        squash(large, tmp_path / "other", side=32)
    assert len(list((tmp_path / "other").rglob("*.png"))) == 5


def test_another_data_set_is_not_squashed_over(large, tmp_path):
    squash(large, tmp_path / "small", side=64)
    before = {path: path.read_bytes() for path in large.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"is there already, without \.squashed"):
        squash(tmp_path / "small", large, side=32)
    assert before == {path: path.read_bytes() for path in large.rglob("*") if path.is_file()}


def test_a_listed_data_set_is_squashed_with_its_table(tmp_path):
    (tmp_path / "data").mkdir()
    ph2(tmp_path / "data")
    prepare("ph2", tmp_path / "data")
    squash(tmp_path / "data", tmp_path / "small", side=4)
    original, copy = open_data_set(tmp_path / "data"), open_data_set(tmp_path / "small")
    columns = ["label", "split", "group", "histological_diagnosis"]
    assert copy.rows[columns].equals(original.rows[columns])
    assert {read_image(path).shape for path in copy.rows[PATH]} == {(4, 4, 3)}
    assert set(copy.masks("test", copy.images("test"))) == set(copy.images("test"))
