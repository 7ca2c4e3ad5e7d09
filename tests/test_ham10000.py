"""HAM10000 in its official layout."""

import shutil

import numpy as np
import pytest

from data.errors import InputError
from data.extra import data_set
from data.ham10000 import TABLE, image_paths, read_labels
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
    paths = data_set(folder).image_paths(folder)
    assert list(paths) == ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003", "ISIC_0000004"]
    assert read_labels(folder, paths).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_of_one_id_in_two_folders_the_images_must_be_the_same(folder):
    both_cases(folder)
    next(folder.glob("ham10000_images_part_2/ISIC_0000003.jpg"), next(folder.glob("ham*/*.jpg"))).write_bytes(b"other")
    with pytest.raises(InputError, match="are one image by their names, and differ: remove one"):
        image_paths(folder)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda folder: (folder / TABLE).unlink(), "is missing: point --extra-data-dir"),
        (lambda folder: (folder / TABLE).write_text("a,b\n1,2\n"), "is not the table of HAM10000"),
        (
            lambda folder: next(folder.glob("*/ISIC_0000002.jpg")).unlink(),
            r"lacks ISIC_0000002.jpg \(1 of the 4 images that are of use\)",
        ),
    ],
)
def test_bad_input_is_one_sentence(folder, spoil, named):
    spoil(folder)
    with pytest.raises(InputError, match=named):
        image_paths(folder)


def test_a_folder_of_further_images_is_known_by_its_table(folder, tmp_path):
    assert data_set(folder).table(folder) == folder / TABLE
    with pytest.raises(InputError, match=r"none holds no HAM10000_metadata.csv: point --extra-data-dir at a data set"):
        data_set(tmp_path / "none")
