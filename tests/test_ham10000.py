"""HAM10000 as it comes, as further images of another data set."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

import resize
import seg_predict
from config import PRESETS
from data.classes import ISIC_2017
from data.dataset import FurtherImages
from data.images import check_images, mask_facts, read_image, read_mask, write_image
from data.official import masks_of
from utils.errors import InputError

TABLE = "HAM10000_metadata.csv"
ROWS = [
    ("HAM_0000001", "ISIC_0000003", "bkl"),
    ("HAM_0000001", "ISIC_0000001", "bkl"),
    ("HAM_0000002", "ISIC_0000002", "mel"),
    ("HAM_0000003", "ISIC_0000004", "nv"),
    ("HAM_0000004", "ISIC_0000005", "bcc"),
]


@pytest.fixture
def folder(tmp_path):
    """Five images in two parts, four of them of the three classes."""
    lines = [f"{lesion},{image},{dx},histo,80.0,male,scalp" for lesion, image, dx in ROWS]
    (tmp_path / TABLE).write_text("lesion_id,image_id,dx,dx_type,age,sex,localization\n" + "\n".join(lines) + "\n")
    for k, (_, image_id, _) in enumerate(ROWS):
        part = tmp_path / f"HAM10000_images_part_{1 + k % 2}"
        write_image(part / f"{image_id}.jpg", np.full((8, 8, 3), 40 * k, np.uint8))
    return tmp_path


def image_paths(folder):
    return FurtherImages(folder, ISIC_2017).images("extra")


def read_labels(folder, image_ids):
    return FurtherImages(folder, ISIC_2017).labels("extra", image_ids)


def test_images_of_the_three_classes_are_found_in_both_parts(folder):
    paths = image_paths(folder)
    assert FurtherImages(folder, ISIC_2017).left_out == {"bcc": 1}
    assert list(paths) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003", "ISIC_0000004"]
    assert all(path.is_file() and path.stem == image_id for image_id, path in paths.items())
    assert read_labels(folder, paths).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def flat(folder):
    for path in folder.glob("*/ISIC*"):
        path.rename(folder / path.name)


def lower_case(folder):
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.lower())


def one_folder_within_another(folder):
    (folder / "HAM10000_images").mkdir()
    inner = folder / "HAM10000_images" / "HAM10000_images"
    inner.mkdir()
    for path in list(folder.glob("*part*/ISIC*")):
        path.rename(inner / path.name)


def tabs(folder):
    table = folder / TABLE
    table.with_suffix(".tab").write_text(table.read_text().replace(",", "\t"))
    table.unlink()


def both_cases(folder):
    for path in list(folder.glob("*part*")):
        shutil.copytree(path, folder / path.name.lower())


@pytest.mark.parametrize("change", [flat, lower_case, one_folder_within_another, tabs, both_cases])
def test_other_layouts_are_read(folder, change):
    change(folder)
    paths = image_paths(folder)
    assert list(paths) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003", "ISIC_0000004"]
    assert read_labels(folder, paths).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_of_one_id_in_two_folders_the_images_must_be_the_same(folder):
    both_cases(folder)
    next(folder.glob("ham10000_images_part_2/ISIC_0000003.jpg"), next(folder.glob("ham*/*.jpg"))).write_bytes(b"other")
    with pytest.raises(InputError, match="have the same image id, but differ: remove one"):
        image_paths(folder)


def edit(folder, old, new):
    """Replace a pattern in the table."""
    (folder / TABLE).write_text(re.sub(old, new, (folder / TABLE).read_text()))


def test_spaces_and_case_drop_no_row(folder):
    expected = read_labels(folder, image_paths(folder)).tolist()
    edit(folder, ",(mel|nv)", lambda found: f", {found[1].upper()} ")
    edit(folder, "dx,", "dx ,")
    assert read_labels(folder, image_paths(folder)).tolist() == expected


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / TABLE).unlink(), "ISIC-2017_Training_Data is missing"),
        (lambda folder: (folder / TABLE).write_text("a,b\n1,2\n"), "has no column image_id, dx"),
        (lambda folder: edit(folder, "HAM_0000001,ISIC_0000003", "HAM_0000001,ISIC_0000001"), "ISIC_0000001 twice"),
        (lambda folder: edit(folder, "age,sex", "dx,sex"), "column dx twice"),
        (lambda folder: edit(folder, ",(mel|nv|bkl),", ",df,"), "no image of a class of this data set: map its labels"),
        (
            lambda folder: next(folder.glob("*/ISIC_0000002.jpg")).unlink(),
            r"lacks the image ISIC_0000002 \(1 of 5\): unpack all archives",
        ),
    ],
)
def test_bad_input_is_one_sentence(folder, spoil, named):
    spoil(folder)
    with pytest.raises(InputError, match=named):
        image_paths(folder)


def test_labels_are_mapped_by_a_table_of_ones_own(folder):
    further = FurtherImages(folder, ISIC_2017, ("bcc=melanoma", "NV = nevus"))
    assert list(further.images("extra")) == ["ISIC_0000004", "ISIC_0000005"]
    assert further.labels("extra", ["ISIC_0000005", "ISIC_0000004"]).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert further.left_out == {"bkl": 2, "mel": 1}
    assert list(FurtherImages(folder, ("bcc", "nv")).images("extra")) == ["ISIC_0000004", "ISIC_0000005"]
    for mapping, named in (("bcc=carcinoma", "bcc=carcinoma"), ("bcc", "bcc=")):
        with pytest.raises(InputError, match=f"--extra-labels {named}: write label=class"):
            FurtherImages(folder, ISIC_2017, (mapping,))
    with pytest.raises(
        InputError, match=r"no image of a class of this data set: map its labels \(bkl, .*--extra-labels"
    ):
        FurtherImages(folder, ("melanoma", "carcinoma"), ("df=carcinoma",))


MASK = np.array([[0, 255, 255, 0, 0, 0, 0, 0, 0, 255]] * 3, np.uint8)
PBM = b"P4\n10 3\n" + bytes([0b10011111, 0b10000000] * 3)  # 1 is black


def test_masks_are_found_by_the_id_whatever_the_case_and_the_format(tmp_path):
    write_image(tmp_path / "a_Segmentation.PNG", MASK)
    (tmp_path / "b_segmentation.pbm").write_bytes(PBM)
    (tmp_path / "b.txt").touch()
    found = masks_of(tmp_path, ["b", "a"])
    assert list(found) == ["b", "a"]
    for path in found.values():
        np.testing.assert_array_equal(read_mask(path), MASK)
    facts, bad = check_images(found, workers=1, look=mask_facts)
    assert ({image_id: fact[:2] for image_id, fact in facts.items()}, bad) == ({"b": (3, 10), "a": (3, 10)}, {})


def test_a_mask_that_is_not_there_or_cut_off_is_one_sentence(tmp_path):
    (tmp_path / "b_segmentation.pbm").write_bytes(PBM[:-2])
    _, bad = check_images(masks_of(tmp_path, ["a", "b"]), workers=1, look=mask_facts)
    assert str(bad["a"]) == f"{tmp_path}/a_segmentation.png is missing: put it there"
    assert str(bad["b"]).startswith(f"{tmp_path}/b_segmentation.pbm cannot be ")
    (tmp_path / "b_Segmentation.png").touch()
    with pytest.raises(InputError, match="are masks of one image: remove one"):
        masks_of(tmp_path, ["b"])


@pytest.fixture
def with_masks(folder, tmp_path):
    """Settings with further images of 8 pixels, and with masks of 4 of them."""
    rng, mask = np.random.default_rng(0), np.zeros((8, 8), np.uint8)
    mask[1:5, 3:7] = 255
    for image_id, path in image_paths(folder).items():
        write_image(path, rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        write_image(tmp_path / "masks" / f"{image_id}_segmentation.png", mask)
    further = {"extra_data_dir": folder, "extra_mask_dir": tmp_path / "masks"}
    return replace(PRESETS["sample"], data_dir=tmp_path / "none", run_dir=tmp_path / "run", splits=(), **further)


def test_further_images_are_cropped_by_their_own_masks(with_masks):
    resize.main(replace(with_masks, image_size=4, crop_margin_px=0))
    for image_id, path in image_paths(with_masks.extra_data_dir).items():
        crop = read_image(with_masks.run_dir / f"crops/extra/{image_id}.png")
        np.testing.assert_array_equal(crop, read_image(path)[1:5, 3:7])


def test_further_images_are_segmented_only_where_they_have_no_masks(with_masks, monkeypatch):
    segmented = []
    monkeypatch.setattr(seg_predict, "write_masks", lambda config, split, *rest: segmented.append(split))
    (with_masks.run_dir / "unet").mkdir(parents=True)
    (with_masks.run_dir / "unet/unet.keras").touch()
    seg_predict.main(with_masks)
    assert segmented == []
    seg_predict.main(replace(with_masks, extra_mask_dir=None))
    assert segmented == ["extra"]
