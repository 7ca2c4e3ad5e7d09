"""Images that stand in a data set more than once."""

import re
import shutil

import numpy as np
import pytest

from data.duplicates import near_duplicates
from data.images import read_image, write_image
from data.official import OfficialFolders, image_folder


@pytest.fixture
def data(tiny_sample, tmp_path):
    """The sample, with the third training image also among the validation images, and the fifth, turned, among the
    test images."""
    folder = shutil.copytree(tiny_sample, tmp_path / "data")
    paths = list(OfficialFolders(folder).images("training").values())
    shutil.copy(paths[2], image_folder(folder, "validation") / "ISIC_0099998.jpg")
    write_image(image_folder(folder, "test") / "ISIC_0099999.jpg", np.rot90(read_image(paths[4])[:, ::-1]).copy())
    return folder


def test_the_same_image_is_found_whatever_its_turn_or_compression(data):
    paths = [
        path for split in ("training", "validation", "test") for path in OfficialFolders(data).images(split).values()
    ]
    pairs = near_duplicates(paths, correlation=0.99)
    assert {(paths[i].stem, paths[k].stem) for i, k, _ in pairs} == {
        (paths[2].stem, "ISIC_0099998"),
        (paths[4].stem, "ISIC_0099999"),
    }
    assert pairs[0][2] == pytest.approx(1, abs=1e-5)
    assert 0.99 < pairs[1][2] < 1


def test_blocks_find_what_one_block_finds(data, monkeypatch):
    paths = [
        path for split in ("training", "validation", "test") for path in OfficialFolders(data).images(split).values()
    ]
    whole = near_duplicates(paths, correlation=0.5)
    monkeypatch.setattr("data.duplicates.PRODUCTS", 4096)
    blocks = near_duplicates(paths, correlation=0.5)
    assert len(whole) > 2
    assert {pair[:2] for pair in blocks} == {pair[:2] for pair in whole}


def test_the_command_names_splits_and_says_what_is_the_same(data, run_script):
    result = run_script("-m", "data.duplicates", "--data-dir", data, "--correlation", 0.99)
    assert result.returncode == 0, result.stderr
    ids = list(OfficialFolders(data).images("training"))
    assert f"training {ids[2]} = validation ISIC_0099998: the same pixels" in result.stdout
    assert re.search(rf"training {ids[4]} = test ISIC_0099999: correlation (0\.99|1\.00)", result.stdout)
    assert result.stdout.strip().splitlines()[-1] == "2 pairs among 34 images, 2 of them across splits"
