"""predict.py on images of the tiny sample, with the networks of the finished run."""

import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.classes import ISIC_2017 as CLASSES
from data.images import read_image, read_mask, write_image
from data.official import OfficialFolders, image_folder
from data.own_images import distinct_names, find_images, oddities, print_passed_over
from pipeline import finished_run
from pipeline.finished_run import load_run
from predict import add_rows, refuse_overwrite
from tests.conftest import BACKBONES
from tests.test_bad_files import spoil
from tests.test_stages import fails
from utils.errors import InputError


@pytest.fixture(scope="module")
def predict(run_script):
    """Function that runs predict.py with no setting but these options."""
    # With graphs, as the finished run: run otherwise, rounding differs, and with it perhaps a pixel of a mask.
    return lambda *options, **environment: run_script("predict.py", *options, eager=False, **environment)


@pytest.fixture(scope="module")
def predicted(predict, finished, tiny_sample, tmp_path_factory):
    """What predict.py says and writes about the test split and one more image of the same name, half grey."""
    folder = tmp_path_factory.mktemp("own")
    grey = folder / "elsewhere" / "ISIC_0000024.png"
    write_image(
        grey, cv2.cvtColor(read_image(OfficialFolders(tiny_sample).images("test")["ISIC_0000024"]), cv2.COLOR_RGB2GRAY)
    )
    images = image_folder(tiny_sample, "test")
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    result = predict(images, grey, next(images.iterdir()), "--run-dir", finished, "--output", folder / "out")
    assert result.returncode == 0, result.stderr
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}, "the run folder was written to"
    return result.stdout, folder / "out"


def test_predictions_are_those_of_the_stages(predicted, finished, tiny_sample):
    table = pd.read_csv(predicted[1] / "predictions.csv")
    assert len(table) == 9
    table = table[table["file"].str.startswith(str(tiny_sample))].set_index("name")
    for method, columns in (("vote", list(CLASSES)), ("mean", [f"mean_{name}" for name in CLASSES])):
        expected = pd.read_csv(finished / "predictions" / f"{method}_test.csv", index_col="image_id")
        assert set(expected.index) == set(table.index)
        np.testing.assert_allclose(table.loc[expected.index, columns], expected, atol=1e-3)
    assert list(table["decision"]) == list(table[list(CLASSES)].idxmax(axis=1))


def test_another_method_may_decide(predict, finished, tiny_sample, tmp_path):
    images = image_folder(tiny_sample, "test")
    result = predict(images, "--run-dir", finished, "--decide-by", "mean", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", index_col="name")
    expected = pd.read_csv(finished / "predictions" / "mean_test.csv", index_col="image_id")
    np.testing.assert_allclose(table.loc[expected.index, list(CLASSES)], expected, atol=1e-3)
    assert list(table["decision"]) == list(table[list(CLASSES)].idxmax(axis=1))
    assert "mean" in (tmp_path / "out" / "NO_DIAGNOSIS.txt").read_text()


def test_a_run_can_be_asked_without_the_script(finished, tiny_sample):
    paths = list(OfficialFolders(tiny_sample).images("test").values())
    masks = {}
    found = list(load_run(finished, workers=1).diagnose(map(str, paths), masks.__setitem__))
    assert [one.path for one in found] == paths
    assert list(masks) == paths
    for method in ("vote", "mean", *BACKBONES):
        expected = pd.read_csv(finished / "predictions" / f"{method}_test.csv", index_col="image_id")[list(CLASSES)]
        ours = np.stack([one.probabilities[method] for one in found])
        expected = expected.loc[[path.stem for path in paths]]
        np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), expected, atol=1e-3)
    for one in found:
        expected = read_image(finished / "crops/test" / f"{one.path.stem}.png")
        assert np.abs(one.crop.astype(int) - expected).mean() < 5  # of a box that may be off by a pixel


def test_the_mask_of_a_diagnosis_is_0_or_255_however_small_it_is_shown(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(finished_run, "PREVIEW", 33)
    path = tmp_path / "image.png"
    write_image(path, np.full((96, 128, 3), 200, np.uint8))
    mask = np.zeros((96, 128), np.uint8)
    mask[20:50, 30:71] = 255
    found = load_run(finished).look(lambda path, mask: None, path, mask)
    assert found.mask.shape == found.image.shape[:2] == (33, 44)
    assert set(np.unique(found.mask)) == {0, 255}


def test_a_run_is_not_opened_with_settings_that_did_not_make_it(finished, tmp_path):
    with pytest.raises(InputError, match="image_size = 80, but"):
        load_run(finished, image_size=80)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_run(tmp_path)


def test_masks_and_boxes_are_those_of_the_stages(predicted, finished, tiny_sample):
    table = pd.read_csv(predicted[1] / "predictions.csv", index_col="name")
    for image_id in OfficialFolders(tiny_sample).images("test"):
        mask = read_mask(predicted[1] / "masks" / f"{image_id}_segmentation.png")
        expected = read_mask(finished / "masks/test" / f"{image_id}_segmentation.png")
        assert (mask != expected).mean() < 0.01  # a probability may be rounded over the threshold
        row = table.loc[image_id]
        assert row["segmented"] == mask.any()
        inside = np.zeros(mask.shape, bool)
        inside[row["top"] : row["bottom"], row["left"] : row["right"]] = True
        assert not mask[~inside].any()


def test_every_image_gets_a_picture_and_the_warning_stands_everywhere(predicted):
    stdout, output = predicted
    names = pd.read_csv(output / "predictions.csv")["name"]
    assert {"ISIC_0000024", "ISIC_0000024_2"} < set(names)
    assert {path.stem for path in (output / "pictures").iterdir()} == set(names)
    assert all(cv2.imread(str(path)).std() > 10 for path in (output / "pictures").iterdir())
    assert "no diagnosis" in stdout
    assert "1 of 9 images" in stdout
    assert "grey" in stdout
    assert "no diagnosis" in (output / "NO_DIAGNOSIS.txt").read_text()


def test_help_warns_and_answers_at_once(run_script):
    result = run_script("-X", "importtime", "predict.py", "--help", COLUMNS="200")
    assert result.returncode == 0
    for text in ("no diagnosis", "PATH", "--output", "Folder that the stages write to", "Folder for the table"):
        assert text in " ".join(result.stdout.split()), text
    modules = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert not modules & {"keras", "tensorflow", "cv2", "pandas"}


def test_the_table_grows_by_its_new_rows_alone(tmp_path):
    path = tmp_path / "out" / "predictions.csv"
    rows = [{"file": f"{name}.jpg", "vote": k / 7, "segmented": k > 0} for k, name in enumerate(("a", 'b, "c"', "d"))]
    add_rows(path, [{"file": "of a former run.jpg", "vote": 0.0, "segmented": True}], first=True)
    add_rows(path, rows[:1], first=True)
    before = path.stat().st_ino, path.read_bytes()
    add_rows(path, rows[1:], first=False)
    assert path.stat().st_ino == before[0], "what stood there was written again"
    assert path.read_bytes().startswith(before[1])
    pd.testing.assert_frame_equal(pd.read_csv(path), pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ([], ["no image is named"]),
        (["nowhere.jpg"], ["nowhere.jpg does not exist"]),
        (["tests"], ["tests holds no .jpg"]),
        (["IMAGES", "--run-dir", "nowhere"], ["nowhere/vote/vote.keras", "vote.py"]),
        (["IMAGES", "--run-dir", "RUN", "--image-size", 80], ["image_size = 80", "made with 72"]),
    ],
)
def test_bad_input_is_one_sentence(predict, finished, tiny_sample, options, parts):
    stands_for = {"IMAGES": image_folder(tiny_sample, "test"), "RUN": finished}
    assert fails(predict(*(stands_for.get(option, option) for option in options)), *parts)


def test_a_run_whose_parts_do_not_belong_together_is_refused(predict, stage, finished, tiny_sample, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run")
    images = image_folder(tiny_sample, "test")
    assert stage("resize.py", run_dir, "--splits", "test", "--crop-margin-px", 40).returncode == 0
    remedy = "run `python cls_predict.py --backbone-name"
    assert fails(predict(images, "--run-dir", run_dir), "_test.csv was made from an earlier crops_test", remedy)
    assert fails(stage("cls_predict.py", run_dir), "crops_t", "was made with crop_margin_px", "for both")
    assert not (run_dir / "own").exists()


def test_without_records_a_run_is_predicted_with_settings_that_are_named(predict, finished, tiny_sample, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("manifests"))
    options = [OfficialFolders(tiny_sample).images("test")["ISIC_0000024"], "--run-dir", run_dir]
    assert fails(predict(*options), "has no record of the settings of its crops", "--config")
    result = predict(*options, "--config", run_dir / "vote" / "config.json", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "predictions.csv").exists()


def test_bad_images_are_all_named_or_left_out(predict, finished, tiny_sample, tmp_path):
    image = OfficialFolders(tiny_sample).images("test")["ISIC_0000024"]
    (tmp_path / "cut.jpg").write_bytes(image.read_bytes()[:1500])
    (tmp_path / "text.png").write_text("text")
    options = [tmp_path, image, "--run-dir", finished, "--output", tmp_path / "out"]
    assert fails(predict(*options), "cut.jpg", "text.png", "--skip-bad-images")
    assert not (tmp_path / "out").exists()
    result = predict(*options, "--skip-bad-images")
    assert result.returncode == 0, result.stderr
    assert "left out 2 bad images" in result.stdout
    assert list(pd.read_csv(tmp_path / "out" / "predictions.csv")["file"]) == [str(image)]


def test_odd_names_and_terminals_do_no_harm(predict, finished, tiny_sample, tmp_path):
    image = OfficialFolders(tiny_sample).images("test")["ISIC_0000024"]
    folder = tmp_path / "images"
    folder.mkdir()
    names = [b"caf\xe9.jpg", "crème.jpg".encode(), b"$}_$.JPG"]
    for name in names:
        shutil.copy(image, folder / os.fsdecode(name))
    write_image(folder / "1x1.png", np.full((1, 1, 3), 200, np.uint8))
    spoil(Path(shutil.copy(image, folder / "spoilt.jpg")))
    options = [folder, "--run-dir", finished, "--output", tmp_path / "out"]
    assert fails(predict(*options), "spoilt.jpg", "--skip-bad-images")
    result = predict(*options, "--skip-bad-images", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert r"caf\udce9.jpg" in result.stdout
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", encoding_errors="surrogateescape")
    assert {os.path.basename(os.fsencode(file)) for file in table["file"]} == {*names, b"1x1.png"}
    assert all((tmp_path / "out" / "pictures" / f"{name}.png").exists() for name in table["name"])
    assert predict(*options, "--skip-bad-images").returncode == 0, "the same images once more"


def test_predictions_of_other_images_are_not_written_over(predict, predicted, finished, tiny_sample):
    output = predicted[1]
    table = (output / "predictions.csv").read_bytes()
    image = OfficialFolders(tiny_sample).images("validation")
    result = predict(*image.values(), "--run-dir", finished, "--output", output)
    assert fails(result, output / "predictions.csv", "9 such images", "another --output")
    assert (output / "predictions.csv").read_bytes() == table


def test_a_table_may_be_written_over_where_its_images_are_named_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "predictions.csv"
    refuse_overwrite(table, [])
    table.write_text("file,melanoma\na.jpg,0.5\n")
    refuse_overwrite(table, [tmp_path / "a.jpg", tmp_path / "b.jpg"])
    with pytest.raises(InputError, match=r"predictions\.csv holds a\.jpg \(1 such"):
        refuse_overwrite(table, [tmp_path / "b.jpg"])
    table.write_text("melanoma\n0.5\n")
    with pytest.raises(InputError, match="is no table of predict"):
        refuse_overwrite(table, [tmp_path / "a.jpg"])


def test_images_are_found_in_folders_and_named_once(tmp_path):
    for name in ("b.JPG", "a.png", "._a.png", "a_superpixels.png", "notes.txt", "deep/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images([tmp_path, tmp_path / "deep" / ".." / "a.png"]) == [tmp_path / "a.png", tmp_path / "b.JPG"]
    assert find_images([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]  # reading it will say what is wrong
    with pytest.raises(InputError, match="deep2 does not exist"):
        find_images([tmp_path / "deep2"])


def test_every_format_that_is_read_is_taken_of_a_folder_and_the_rest_named(tmp_path, capsys):
    taken = ["a.bmp", "b.jfif", "c.jpeg", "d.tif", "e.tiff", "f.webp"]
    for name in (*taken, "g.heic", "h.dng"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    assert [path.name for path in find_images([tmp_path])] == taken
    print_passed_over([tmp_path])
    assert re.search(r"passed over 3 of .*: deeper, g\.heic, h\.dng$", capsys.readouterr().out.strip())


def test_images_that_use_fewer_bits_are_told(tmp_path):
    write = {"deep": 16, "shallow": 12}
    for name, bits in write.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), 2**bits - 1, np.uint16))
    ((what, paths),) = oddities(sorted(tmp_path.iterdir())).items()
    assert what.startswith("use 12 of their 16 bits")
    assert [path.stem for path in paths] == ["shallow"]


def test_names_are_distinct_whatever_folder_suffix_and_case(tmp_path):
    paths = [tmp_path / name for name in ("a/p.jpg", "b/p.jpg", "b/P.png", "p_2.jpg", "q.jpg")]
    assert distinct_names(paths) == ["p", "p_2", "P_3", "p_2_2", "q"]


def test_grey_and_transparent_images_are_found(tmp_path):
    for mode in ("RGB", "L", "RGBA", "LA"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode}.png")
    grey, transparent = oddities(sorted(tmp_path.iterdir())).values()
    assert [path.stem for path in grey] == ["L", "LA"]
    assert [path.stem for path in transparent] == ["LA", "RGBA"]
