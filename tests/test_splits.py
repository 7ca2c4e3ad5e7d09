"""The same image in two splits, whether by its id or by its picture."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

import data.duplicates
from config import PRESETS
from data.images import read_image, resize, write_image
from data.official import KNOWN_DUPLICATES, OfficialFolders, image_folder
from pipeline import checks
from tests.conftest import BUDGET
from utils.errors import InputError

FREE = "ISIC_0099999"


@pytest.fixture
def folder(tiny_sample, tmp_path):
    """A data set to change."""
    return shutil.copytree(tiny_sample, tmp_path / "data")


@pytest.fixture
def config(folder, tmp_path):
    return replace(PRESETS["sample"], data_dir=folder, run_dir=tmp_path / "run")


@pytest.fixture
def extra(folder, tmp_path):
    """Function that adds a picture to a folder of further images, which has another of its own."""
    part = tmp_path / "HAM" / "HAM10000_images_part_1"
    table = part.parent / "HAM10000_metadata.csv"
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    write_image(part / "ISIC_0090000.jpg", noise)
    table.write_text("lesion_id,image_id,dx\nHAM_0,ISIC_0090000,mel\n")

    def add(image_id, image):
        write_image(part / f"{image_id}.jpg", image)
        table.write_text(f"{table.read_text()}HAM_1,{image_id},nv\n")
        return part.parent

    return add


CHANGES = {
    "same file": lambda image: image,
    "turned": lambda image: np.rot90(image)[:, ::-1].copy(),
    "half as large": lambda image: resize(image, image.shape[0] // 2, image.shape[1] // 2),
}


def first_of(folder, split):
    return next(iter(OfficialFolders(folder).images(split).items()))


def test_clean_splits_pass_without_a_word(config, extra, capsys):
    checks.check_splits(config)
    checks.check_splits(
        replace(config, extra_data_dir=extra("ISIC_0090001", np.eye(96, dtype=np.uint8)[..., None].repeat(3, axis=2)))
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("split", "other"), [("training", "validation"), ("training", "test"), ("validation", "test")])
def test_an_id_in_two_splits_is_refused_or_let_pass_whatever_its_picture(config, folder, split, other, capsys):
    image_id, _ = first_of(folder, split)
    _, theirs = first_of(folder, other)
    theirs.rename(theirs.with_name(f"{image_id}.jpg"))
    named = rf"{image_id}.jpg \({split}\) and .*{image_id}.jpg \({other}\) have the same id: remove one"
    with pytest.raises(InputError, match=named):
        checks.check_splits(config)
    checks.check_splits(replace(config, allow_duplicates=True))
    assert "1 pictures are in two splits, accepted because of --allow-duplicates" in capsys.readouterr().out


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("split", "other"), [("training", "validation"), ("training", "test"), ("validation", "test")])
def test_a_picture_in_two_splits_is_refused_or_let_pass(config, folder, split, other, change, capsys):
    image_id, path = first_of(folder, split)
    write_image(image_folder(folder, other) / f"{FREE}.jpg", CHANGES[change](read_image(path)))
    with pytest.raises(InputError, match=rf"{image_id}.* \({split}\) and .*{FREE}.* \({other}\).*--allow-duplicates"):
        checks.check_splits(config)
    checks.check_splits(replace(config, allow_duplicates=True))
    assert "1 pictures are in two splits, accepted because of --allow-duplicates" in capsys.readouterr().out


def test_the_pairs_of_the_published_data_set_pass_and_are_counted(config, folder, capsys):
    first, second = min(KNOWN_DUPLICATES)  # whatever splits they are in
    _, path = first_of(folder, "training")
    path = path.rename(path.with_name(f"{first}.jpg"))
    shutil.copy(path, image_folder(folder, "test") / f"{second}.jpg")
    checks.check_splits(config)
    assert "1 pictures are in two splits of the published ISIC 2017" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["validation", "test"])
def test_further_images_of_another_split_are_refused_by_id_and_by_picture(config, folder, extra, split):
    image_id, path = first_of(folder, split)
    config = replace(config, extra_data_dir=extra(FREE, read_image(path)))
    with pytest.raises(InputError, match=rf"{image_id}.* \({split}\) and .*{FREE}.* \(extra\) are the same picture"):
        checks.check_splits(config)
    extra(image_id, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=rf"HAM10000_images_part_1/{image_id}.jpg \(extra\) have the same id"):
        checks.check_splits(config)


def test_a_further_image_of_training_matters_with_folds_alone(config, folder, extra):
    config = replace(config, extra_data_dir=extra(FREE, read_image(first_of(folder, "training")[1])))
    checks.check_splits(config)
    with pytest.raises(InputError, match=rf"\(training\) and .*{FREE}.* \(extra\)"):
        checks.check_splits(replace(config, folds=2))


def test_no_image_is_decoded_twice_for_this_unless_it_changes(config, folder, monkeypatch):
    decoded = []
    read = data.duplicates.read_image
    monkeypatch.setattr(data.duplicates, "read_image", lambda path, **how: decoded.append(path) or read(path, **how))
    odd = image_folder(folder, "test") / os.fsdecode(b"ISIC_caf\xe9.jpg")
    write_image(odd, np.tile(np.arange(128, dtype=np.uint8)[:, None], (96, 1, 3)))
    checks.check_splits(config)
    assert len(decoded) == 33
    checks.check_splits(config)
    assert len(decoded) == 33
    _, path = first_of(folder, "validation")
    path.write_bytes(b"no image")  # which the stage that works on it names
    checks.check_splits(config)
    assert decoded[33:] == [path]
    (config.run_dir / "fingerprints.npz").write_text("garbage")
    checks.check_splits(config)
    assert len(decoded) == 34 + 33


def test_the_first_stages_refuse_before_anything_is_made(run_script, config, folder, tmp_path):
    _, path = first_of(folder, "training")
    shutil.copy(path, image_folder(folder, "test") / f"{FREE}.jpg")
    for script, options in (("seg_train.py", ()), ("resize.py", ("--masks", "none", "--splits", "validation"))):
        result = run_script(script, *BUDGET, "--data-dir", folder, "--run-dir", config.run_dir, *options)
        assert result.returncode == 2
        assert f"{FREE}.jpg (test) are the same picture: remove one of them, put both" in result.stderr
    assert {path.name for path in config.run_dir.iterdir()} == {"decoded.json", "fingerprints.npz"}
