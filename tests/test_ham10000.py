"""HAM10000 in its official layout."""

import re

import numpy as np
import pytest

from data.errors import InputError
from data.extra import data_set
from data.ham10000 import TABLE, diagnoses, image_paths, read_labels
from data.images import write_image

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


def test_images_of_the_three_classes_are_found_in_both_parts(folder):
    paths = image_paths(folder)
    assert list(paths) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003", "ISIC_0000004"]
    assert all(path.is_file() and path.stem == image_id for image_id, path in paths.items())
    assert read_labels(folder, paths).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def edit(folder, old, new):
    """Replace a pattern in the table."""
    (folder / TABLE).write_text(re.sub(old, new, (folder / TABLE).read_text()))


def test_spaces_and_case_drop_no_row(folder):
    expected = diagnoses(folder)
    edit(folder, ",(mel|nv)", lambda found: f", {found[1].upper()} ")
    edit(folder, "dx,", "dx ,")
    assert diagnoses(folder).to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / TABLE).unlink(), "is missing: point --extra-data-dir"),
        (lambda folder: (folder / TABLE).write_text("a,b\n1,2\n"), "has no column image_id, dx"),
        (lambda folder: edit(folder, "HAM_0000001,ISIC_0000003", "HAM_0000001,ISIC_0000001"), "ISIC_0000001 twice"),
        (lambda folder: edit(folder, ",bcc,", ",melanoma,"), "diagnosis 'melanoma' for ISIC_0000005 .1 such rows"),
        (lambda folder: edit(folder, "age,sex", "dx,sex"), "column dx twice"),
        (lambda folder: edit(folder, ",(mel|nv|bkl),", ",df,"), "no image of mel, bkl, nv"),
        (lambda folder: next(folder.glob("*/ISIC_0000002.jpg")).unlink(), "lack ISIC_0000002.jpg"),
    ],
)
def test_bad_input_is_one_sentence(folder, spoil, named):
    spoil(folder)
    with pytest.raises(InputError, match=named):
        image_paths(folder)


def test_a_folder_of_further_images_is_known_by_its_table(folder, tmp_path):
    assert data_set(folder).TABLE == TABLE
    with pytest.raises(InputError, match=r"none holds no HAM10000_metadata.csv: point --extra-data-dir at a data set"):
        data_set(tmp_path / "none")
