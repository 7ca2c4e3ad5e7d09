import hashlib
import shutil

import cv2
import numpy as np
import pytest

from data.classes import ISIC_2017
from data.draw_sample import MARK, dermoscopy_image, lesion_shape, write_sample
from data.official import OfficialFolders, image_folder, label_table
from utils.errors import InputError

COUNTS = {"training": 6, "validation": 3, "test": 4}


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, COUNTS, seed=0, height=96, width=128)
    return folder


def test_same_settings_give_same_bytes(sample, tmp_path):
    for _ in range(2):  # the second time over the first
        write_sample(tmp_path, COUNTS, seed=0, height=96, width=128)
        assert digests(tmp_path) == digests(sample)


def test_another_seed_gives_other_images(sample, tmp_path):
    write_sample(tmp_path, COUNTS, seed=1, height=96, width=128)
    here, there = digests(sample), digests(tmp_path)
    assert here.keys() == there.keys()
    assert all(here[name] != there[name] for name in here if name.endswith((".jpg", ".png")))


@pytest.mark.parametrize("split", COUNTS)
def test_layout_is_the_official_one(sample, split):
    images = OfficialFolders(sample).images(split)
    masks = OfficialFolders(sample).masks(split, images)
    labels = OfficialFolders(sample).labels(split, images)
    assert len(images) == COUNTS[split]
    assert labels.shape == (COUNTS[split], 3)
    assert np.isin(labels, (0, 1)).all()
    assert (labels.sum(axis=1) == 1).all()
    assert np.abs(labels.sum(axis=0) - np.array([0.30, 0.25, 0.45]) * COUNTS[split]).max() <= 1
    for image_id, path in images.items():
        image = cv2.imread(str(path))
        mask = cv2.imread(str(masks[image_id]), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8
        assert mask.shape == image.shape[:2]
        assert set(np.unique(mask)) == {0, 255}


def test_ids_are_unique_over_splits(sample):
    image_ids = [image_id for split in COUNTS for image_id in OfficialFolders(sample).images(split)]
    assert len(set(image_ids)) == sum(COUNTS.values())


def test_sizes_vary(sample):
    shapes = {cv2.imread(str(path)).shape for path in OfficialFolders(sample).images("training").values()}
    assert len(shapes) > 1


@pytest.mark.parametrize("diagnosis", ISIC_2017)
def test_lesion_is_one_piece_of_sane_size(diagnosis):
    for number in range(50):
        mask = lesion_shape(np.random.default_rng(number), diagnosis, 96, 128)
        assert 0.01 < (mask > 0).mean() < 0.5
        assert cv2.connectedComponents(mask)[0] == 2
        longer_side = max(cv2.boundingRect(mask)[2:]) / 96
        assert 0.24 < longer_side < 0.78


def test_melanoma_is_more_irregular_and_more_colourful_than_nevus():
    irregularity, spread = {}, {}
    for diagnosis in ("melanoma", "nevus"):
        made = [dermoscopy_image(np.random.default_rng(number), diagnosis, 192, 256) for number in range(20)]
        irregularity[diagnosis] = np.mean([border_irregularity(mask) for _, mask in made])
        spread[diagnosis] = np.mean([image[mask > 0].std(axis=0).mean() for image, mask in made])
    assert irregularity["melanoma"] > 1.2 * irregularity["nevus"]
    assert spread["melanoma"] > 1.2 * spread["nevus"]


def test_keratosis_is_lighter_than_melanoma():
    lightness = {}
    for diagnosis in ("melanoma", "seborrheic_keratosis"):
        made = [dermoscopy_image(np.random.default_rng(number), diagnosis, 96, 128) for number in range(20)]
        lightness[diagnosis] = np.mean([image[mask > 0].mean() for image, mask in made])
    assert lightness["seborrheic_keratosis"] > lightness["melanoma"] + 20


def border_irregularity(mask):
    """Perimeter squared over area: 4 pi for a circle, more for any other shape."""
    (border,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.arcLength(border, closed=True) ** 2 / cv2.contourArea(border)


def test_other_images_are_not_mixed_with_the_sample(sample):
    before = digests(sample)
    with pytest.raises(InputError, match="not of this sample"):
        write_sample(sample, COUNTS | {"test": 2}, seed=0, height=96, width=128)
    assert digests(sample) == before


def test_true_labels_and_masks_are_not_overwritten(sample, tmp_path):
    true = shutil.copytree(sample, tmp_path / "true")
    (true / MARK).unlink()
    for split in COUNTS:
        shutil.rmtree(image_folder(true, split))
    before = digests(true)
    with pytest.raises(InputError, match=r"Part3_GroundTruth.csv is not of a sample and would be overwritten"):
        write_sample(true, COUNTS, seed=1, height=96, width=128)
    for split in COUNTS:
        label_table(true, split).unlink()
    with pytest.raises(InputError, match=r"Part1_GroundTruth is not of a sample"):
        write_sample(true, COUNTS, seed=1, height=96, width=128)
    assert digests(true).items() <= before.items()


@pytest.mark.parametrize("setting", [{"height": 10}, {"seed": -1}, {"counts": COUNTS | {"test": 0}}])
def test_numbers_too_small_are_refused(tmp_path, setting):
    with pytest.raises(InputError, match="give"):
        write_sample(tmp_path, **({"counts": COUNTS, "seed": 0} | setting))
