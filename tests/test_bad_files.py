"""Damaged and unusual files, read by the real stages."""

import csv
import os
import re
import shutil
import struct
from contextlib import suppress
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import data.images as images_module
import seg_train
from config import PRESETS
from data.classes import ISIC_2017
from data.images import image_size, read_image, read_mask
from data.official import OfficialFolders, label_table
from data.probabilities import read_probabilities
from pipeline import checks, inputs
from tests.conftest import BUDGET
from utils.errors import InputError


@pytest.fixture
def data(tiny_sample, tmp_path):
    """A data set to spoil."""
    return shutil.copytree(tiny_sample, tmp_path / "data")


@pytest.fixture
def jpeg(data):
    """One of its images."""
    return OfficialFolders(data).images("test")["ISIC_0000024"]


def claim_size(path, height, width):
    """Write another size into a JPEG's header."""
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")  # baseline frame: marker, length, depth, height, width
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    path.write_bytes(bytes(content))


def test_an_image_that_claims_a_huge_size_is_named(jpeg):
    claim_size(jpeg, 20_000, 20_000)
    with pytest.raises(InputError, match=jpeg.name):
        image_size(jpeg)


def test_a_grey_image_becomes_three_equal_channels(jpeg):
    grey = cv2.imread(str(jpeg), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(jpeg), grey)
    image = read_image(jpeg)
    assert image.shape == (*grey.shape, 3)
    assert (image == image[..., :1]).all()


def test_a_cmyk_image_keeps_its_colours(jpeg):
    expected = read_image(jpeg).astype(int)
    with Image.open(jpeg) as image:
        image.convert("CMYK").save(jpeg, quality=95)
    assert np.abs(read_image(jpeg) - expected).mean() < 6


def test_of_a_phones_several_pictures_the_first_is_read(jpeg):
    expected = read_image(jpeg).astype(int)
    with Image.open(jpeg) as image:
        image.save(jpeg, format="MPO", quality=95, save_all=True, append_images=[image.resize((32, 24))])
    assert image_size(jpeg) == expected.shape[:2]
    assert np.abs(read_image(jpeg) - expected).mean() < 3


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("at_least", [None, 32])
def test_a_turned_image_is_read_upright_at_every_size(jpeg, orientation, at_least):
    upright = read_image(jpeg)
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(upright).transpose(turned).save(jpeg, exif=exif, quality=98, subsampling=0)
    assert image_size(jpeg) == upright.shape[:2]
    image = read_image(jpeg, at_least)
    expected = cv2.resize(upright, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - expected).mean() < 5


@pytest.mark.parametrize(("low", "high", "dtype"), [(0, 1, np.uint8), (0, 65535, np.uint16), (0, 255, np.uint16)])
def test_masks_of_other_depths_and_values_are_read_alike(data, low, high, dtype):
    path = OfficialFolders(data).masks("test", ["ISIC_0000024"])["ISIC_0000024"]
    expected = read_mask(path)
    cv2.imwrite(str(path), np.where(expected, high, low).astype(dtype))
    np.testing.assert_array_equal(read_mask(path), expected)


def test_windows_tables_are_read_alike(data):
    path, ids = label_table(data, "test"), OfficialFolders(data).images("test")
    expected = OfficialFolders(data).labels("test", ids)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(OfficialFolders(data).labels("test", ids), expected)


def test_every_bad_file_is_named_and_nothing_is_written(run_script, data, tmp_path):
    paths = list(OfficialFolders(data).images("test").values())
    paths[1].write_bytes(b"")
    paths[4].write_bytes(paths[4].read_bytes()[:-400])
    result = run_script("resize.py", *BUDGET, "--masks", "none", "--data-dir", data, "--run-dir", tmp_path / "run")
    assert result.returncode == 2
    assert paths[1].name in result.stderr
    assert paths[4].name in result.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"decoded.json"}


# ---- damage that only decoding shows, and what is left out -----------------------------------------------------------


def spoil(path):
    """Make a PNG of a file's picture, and damage its pixels; header and end stay whole, and so does the name."""
    content = bytearray(cv2.imencode(".png", cv2.imread(str(path)))[1].tobytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


@pytest.fixture
def spoilt(data):
    """The data set with an image and, of another image, a mask that look whole; their two paths."""
    paths = OfficialFolders(data).images("training")
    first, second = list(paths)[:2]
    mask = OfficialFolders(data).masks("training", [second])[second]
    spoil(paths[first])
    spoil(mask)
    return paths[first], mask


@pytest.fixture
def settings_of(data, tmp_path):
    """Function that makes settings for the data set and a run folder."""
    preset = replace(PRESETS["sample"], data_dir=data, run_dir=tmp_path / "run")
    return lambda **others: replace(preset, **others)


def usable(config):
    """Ids of the training images with a mask that are in use."""
    _, sizes = inputs.images(config, "training")
    return list(inputs.masks(config, "training", sizes))


def listed(config):
    """What bad_files.csv says, as (what, image_id)."""
    with open(config.run_dir / "bad_files.csv", newline="", errors="surrogateescape") as file:
        return [(row["what"], row["image_id"]) for row in csv.DictReader(file)]


def test_damage_that_only_decoding_shows_stops_a_stage_before_anything_is_lost(spoilt, settings_of):
    config = settings_of()
    network = config.run_dir / "unet" / "unet.keras"
    network.parent.mkdir(parents=True)
    network.write_text("the network that stood there")
    with pytest.raises(InputError, match=rf"{spoilt[0].name}.*--skip-bad-images"):
        seg_train.main(config)
    spoilt[0].unlink()
    label_table(config.data_dir, "training").unlink()
    with pytest.raises(InputError, match=rf"{spoilt[1].name}.*--skip-bad-images"):
        seg_train.main(config)
    assert network.read_text() == "the network that stood there"


def test_damage_that_only_decoding_shows_is_left_out_and_listed(spoilt, data, settings_of):
    config = settings_of(skip_bad_images=True)
    ids = [path.name[:12] for path in spoilt]
    kept = [image_id for image_id in OfficialFolders(data).images("training") if image_id not in ids]
    assert usable(config) == kept
    assert listed(config) == [("training image", ids[0]), ("training mask", ids[1])]
    assert usable(settings_of()) == kept, "later stages go on without the option"


def test_no_good_file_is_decoded_twice_unless_it_changes(data, settings_of, monkeypatch):
    decoded = []
    decode = images_module.decode
    monkeypatch.setattr(
        images_module, "decode", lambda path, *how, **ever: decoded.append(path) or decode(path, *how, **ever)
    )
    ids = usable(settings_of())
    paths = OfficialFolders(data).images("training")
    assert set(decoded) == {*paths.values(), *OfficialFolders(data).masks("training", ids).values()}
    decoded.clear()
    assert usable(settings_of()) == ids
    assert not decoded
    spoil(paths[ids[3]])
    with pytest.raises(InputError, match=paths[ids[3]].name):
        usable(settings_of())
    assert decoded == [paths[ids[3]]]
    (settings_of().run_dir / "decoded.json").write_text("garbage")
    assert usable(settings_of(skip_bad_images=True)) == [image_id for image_id in ids if image_id != ids[3]]


def test_a_missing_mask_is_named_or_left_out(data, settings_of):
    ids = list(OfficialFolders(data).images("training"))
    masks = OfficialFolders(data).masks("training", ids)
    masks[ids[2]].unlink()
    with pytest.raises(InputError, match=rf"{masks[ids[2]].name} is missing: .*--skip-bad-images"):
        usable(settings_of())
    assert usable(settings_of(skip_bad_images=True)) == [image_id for image_id in ids if image_id != ids[2]]
    assert listed(settings_of()) == [("training mask", ids[2])]
    for mask in masks.values():
        mask.unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"Part1_GroundTruth has no training mask that can be used"):
        usable(settings_of(skip_bad_images=True))


def test_of_many_bad_files_some_are_named_and_the_rest_counted(data, settings_of, monkeypatch):
    monkeypatch.setattr(checks, "NAMED", 3)
    paths = list(OfficialFolders(data).images("training").values())[:5]
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(InputError) as error:
        usable(settings_of())
    assert [path.name in str(error.value) for path in paths] == [True] * 3 + [False] * 2
    assert str(error.value).endswith("and 2 more training image files")


def test_resize_takes_odd_names_and_leaves_bad_files_out(run_script, data, spoilt, tmp_path):
    paths = OfficialFolders(data).images("training")
    odd = [os.fsdecode(b"ISIC_caf\xe9"), "ISIC_$}_$", "ISIC_1x1"]
    for name, donor in zip(odd, list(paths)[2:], strict=False):
        paths[donor].rename(paths[donor].with_name(f"{name}.JPG"))
        OfficialFolders(data).masks("training", [donor])[donor].rename(
            OfficialFolders(data).masks("training", [name])[name]
        )
    one = np.full((1, 1, 3), 200, np.uint8)
    cv2.imwrite(str(paths[donor].with_name("ISIC_1x1.JPG")), one)
    cv2.imwrite(str(OfficialFolders(data).masks("training", ["ISIC_1x1"])["ISIC_1x1"]), one)
    run_dir = tmp_path / "run"
    options = [*BUDGET, "--masks", "ground_truth", "--splits", "training", "--data-dir", data, "--run-dir", run_dir]
    result = run_script("resize.py", *options, "--skip-bad-images")
    assert result.returncode == 0, result.stderr
    crops = {path.stem for path in (run_dir / "crops" / "training").glob("*.png")}
    assert crops == set(OfficialFolders(data).images("training")) - {spoilt[0].stem}
    assert set(odd) < crops
    assert cv2.imread(str(run_dir / "results" / "crops_training.png")).std() > 10


# ---- masks that cannot be meant --------------------------------------------------------------------------------------


def write_masks(data, split, change):
    """Replace each mask of a split by `change(mask)`."""
    for path in OfficialFolders(data).masks(split, OfficialFolders(data).images(split)).values():
        cv2.imwrite(str(path), change(read_mask(path)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (np.zeros_like, "16 of 16 training masks, .* first, are empty"),
        (lambda mask: mask // 2, "are empty: a lesion is brighter than 128 of 255"),
        (lambda mask: np.full_like(mask, 255), "are all lesion"),
        (lambda mask: 255 - mask, "look inverted"),
    ],
    ids=["empty", "faint", "full", "inverted"],
)
def test_masks_of_a_split_that_cannot_be_meant_are_refused_or_told_before_the_training(
    data, settings_of, capsys, change, named
):
    config = settings_of()
    write_masks(data, "training", change)
    for _ in range(2):  # from the files, and from what is noted of them
        with pytest.raises(InputError, match=named):
            usable(config)
    write_masks(data, "validation", change)
    _, sizes = inputs.images(config, "validation")
    capsys.readouterr()
    assert len(inputs.masks(config, "validation", sizes)) == 8
    assert re.search(named.replace("16", "8").replace("training", "validation"), capsys.readouterr().out)


def test_some_empty_masks_are_no_fault(data, settings_of, capsys):
    ids = list(OfficialFolders(data).images("training"))
    for path in list(OfficialFolders(data).masks("training", ids).values())[:-1]:
        cv2.imwrite(str(path), np.zeros_like(read_mask(path)))
    assert usable(settings_of()) == ids
    assert "masks" not in capsys.readouterr().out


def turn(path, orientation, **how):
    """Note in an image's EXIF that it is to be turned; its stored pixels stay."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.copy().save(path, exif=exif, **how)


def test_an_image_that_exif_turns_is_refused_where_nothing_shows_that_its_mask_turns_with_it(data, settings_of):
    ids = list(OfficialFolders(data).images("training"))
    images, truths = OfficialFolders(data).images("training"), OfficialFolders(data).masks("training", ids)
    for image_id, orientation in zip(ids, (3, 6, 6, 3), strict=False):
        turn(images[image_id], orientation)
    # The first mask is drawn on who knows what, the second on the stored pixels, the third and fourth on the upright.
    cv2.imwrite(str(truths[ids[2]]), cv2.rotate(read_mask(truths[ids[2]]), cv2.ROTATE_90_CLOCKWISE))
    turn(truths[ids[3]], 3)
    with pytest.raises(InputError) as error:
        usable(settings_of())
    message = str(error.value)
    assert "may be drawn on its image as stored or as EXIF turns it (orientation 3 of the image, 1 of" in message
    assert [truths[image_id].name in message for image_id in ids[:4]] == [True, True, False, False]
    assert usable(settings_of(skip_bad_images=True)) == ids[2:]


def test_a_square_image_that_exif_turns_is_refused(data, settings_of):
    image_id, path = next(iter(OfficialFolders(data).images("training").items()))
    Image.fromarray(read_image(path)[:64, :64]).save(path)
    cv2.imwrite(str(OfficialFolders(data).masks("training", [image_id])[image_id]), np.eye(64, dtype=np.uint8) * 255)
    assert image_id in usable(settings_of())
    turn(path, 6)
    with pytest.raises(InputError, match="may be drawn on its image as stored"):
        usable(settings_of())


cells = st.one_of(st.text(max_size=8), st.integers(-2, 2), st.floats(), st.sampled_from(["ISIC_0000001", "0.0", "1.0"]))


@settings(max_examples=150, deadline=None)
@given(
    header=st.lists(st.sampled_from(["image_id", "melanoma", "seborrheic_keratosis", "nevus", "x"]), max_size=5),
    rows=st.lists(st.lists(cells, max_size=5), max_size=6),
)
def test_any_table_is_read_or_refused(tmp_path_factory, header, rows):
    folder = tmp_path_factory.mktemp("fuzz")
    path = label_table(folder, "test")
    with open(path, "w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([header, *rows])
    for read in (
        lambda: OfficialFolders(folder).labels("test", ["ISIC_0000001"]),
        lambda: read_probabilities(path, ["ISIC_0000001"], ISIC_2017),
    ):
        with suppress(InputError):
            np.testing.assert_allclose(read().sum(axis=1), 1, atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 4000), noise=st.binary(max_size=30), at=st.integers(0, 4000))
def test_any_mask_is_read_or_refused(tmp_path_factory, tiny_sample, cut, noise, at):
    original = OfficialFolders(tiny_sample).masks("test", ["ISIC_0000024"])["ISIC_0000024"].read_bytes()
    content = original[: len(original) - cut % len(original)]
    at %= len(content) + 1
    path = tmp_path_factory.mktemp("fuzz") / "mask.png"
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    with suppress(InputError):
        image_size(path)
        assert set(np.unique(read_mask(path))) <= {0, 255}
