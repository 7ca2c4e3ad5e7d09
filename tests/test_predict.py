"""predict.py on images of the tiny sample, with the networks of the finished run."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.classes import ISIC_2017 as CLASSES
from data.images import read_image, read_mask, write_image
from data.official import OfficialFolders, image_folder
from data.own_images import distinct_names, file_remarks, find_images, picture_remarks, print_passed_over
from data.probabilities import read_scores
from evaluation.overlays import heat_map
from models.grad_cam import grad_cam
from pipeline import finished_run
from pipeline.finished_run import DRAWN, as_rgb, load_run
from pipeline.paths import TRAINED, RunFolder, default_run
from predict import add_rows, folder_name, refuse_files_of_others, refuse_overwrite
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
        grey,
        cv2.cvtColor(read_image(OfficialFolders(tiny_sample).images("test")["ISIC_0000024"]), cv2.COLOR_RGB2GRAY),
        False,
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
    table = table[table["file"].str.startswith(str(tiny_sample))].set_index("image_id")
    for method, columns in (("vote", list(CLASSES)), ("mean", [f"mean_{name}" for name in CLASSES])):
        expected = pd.read_csv(finished / "predictions" / f"{method}_test.csv", index_col="image_id")
        assert set(expected.index) == set(table.index)
        np.testing.assert_allclose(table.loc[expected.index, columns], expected, atol=1e-3)
    assert list(table["decision"]) == list(table[list(CLASSES)].idxmax(axis=1))
    scored = read_scores(predicted[1] / "predictions.csv", table.index, CLASSES, others=["ISIC_0000024_2"])
    np.testing.assert_array_equal(scored, table[list(CLASSES)])  # as evaluate.py reads them


def test_another_method_may_decide(predict, finished, tiny_sample, tmp_path):
    images = image_folder(tiny_sample, "test")
    result = predict(
        images, "--run-dir", finished, "--decide-by", "mean", "--no-pictures", "--output", tmp_path / "out"
    )
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", index_col="image_id")
    expected = pd.read_csv(finished / "predictions" / "mean_test.csv", index_col="image_id")
    np.testing.assert_allclose(table.loc[expected.index, list(CLASSES)], expected, atol=1e-3)
    assert list(table["decision"]) == list(table[list(CLASSES)].idxmax(axis=1))
    assert "mean" in (tmp_path / "out" / "NO_DIAGNOSIS.txt").read_text()


def test_a_run_can_be_asked_without_the_script(finished, tiny_sample):
    paths = list(OfficialFolders(tiny_sample).images("test").values())
    masks = {}
    found = list(load_run(finished, workers=1).diagnose_each(map(str, paths), masks.__setitem__))
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


@pytest.fixture(scope="module")
def opened(finished):
    """The finished run, opened."""
    return load_run(finished, sensitivity=0.95)


def test_a_notebook_gives_a_path_an_array_or_a_list_of_them(opened, tiny_sample):
    paths = list(OfficialFolders(tiny_sample).images("test").values())[:2]
    by_path, in_list = opened.diagnose(paths[0]), opened.diagnose([str(paths[0]), read_image(paths[1])])
    by_array = opened.diagnose(read_image(paths[0]))
    for one in (in_list[0], by_array):
        np.testing.assert_allclose(one.deciding, by_path.deciding, atol=1e-4)
    assert (by_path.path, by_path.name) == (paths[0], paths[0].name)
    assert (in_list[1].path, in_list[1].name) == (None, "image 2")
    assert len(repr(by_path)) < 200
    assert by_path.decision in repr(by_path)
    assert "melanoma" in repr(opened)
    assert DRAWN in by_path.remarks
    assert DRAWN in by_path.footnote
    for wrong in (3, ["nowhere.jpg"], np.zeros((4, 4, 2))):
        with pytest.raises(InputError, match=r"is no image|is missing"):
            opened.diagnose(wrong)


def test_an_operating_point_decides_where_it_is_asked_for(opened, tiny_sample):
    found = opened.diagnose(list(OfficialFolders(tiny_sample).images("validation").values()))
    assert opened.point.split == "validation"
    kept = json.loads(RunFolder(opened.config.run_dir).operating_points.read_text(encoding="utf-8"))["vote"]
    reached = {point["sensitivity"]: point["reached"] for point in kept["points"]}[0.95]
    assert reached == 1  # of two or three melanomas, 95 % are all
    for one in found:
        assert one.suspect == (one.deciding[0] >= opened.point.threshold)
        assert one.suspect == (one.decision == "melanoma")
        by_argmax = replace(one, decide_by_point=False)
        assert by_argmax.decision == CLASSES[one.deciding.argmax()]
        assert replace(one, point=None, decide_by_point=False).suspect is None


def test_a_method_without_operating_points_decides_by_none(finished, monkeypatch):
    monkeypatch.setattr(finished_run, "read_operating_points", lambda run, method: {})
    with pytest.raises(InputError, match=r"has no operating points of \w+: leave out --sensitivity"):
        load_run(finished, sensitivity=0.95)


def test_a_diagnosis_is_drawn_and_explained_for_a_notebook(opened, tiny_sample):
    found = opened.diagnose(OfficialFolders(tiny_sample).images("test")["ISIC_0000024"])
    plain, explained = found.plot(), opened.explain(found, "melanoma")
    assert plain._repr_jpeg_().startswith(b"\xff\xd8")
    assert len(explained.subfigs) == 2
    maps = opened.maps(found)
    assert list(maps) == list(BACKBONES)
    assert all(map.shape == found.crop.shape for map in maps.values())
    network = opened.networks[0].network
    expected = heat_map(found.crop, grad_cam(network, found.crop[None], [CLASSES.index("nevus")])[0])
    np.testing.assert_array_equal(opened.maps(found, "nevus")[BACKBONES[0]], expected)


def test_arrays_become_images(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert as_rgb(grey).shape == (3, 4, 3)
    np.testing.assert_array_equal(as_rgb(grey / 255), as_rgb(grey))
    np.testing.assert_array_equal(as_rgb(np.dstack([grey] * 4)), as_rgb(grey))
    np.testing.assert_array_equal(as_rgb(Image.fromarray(grey)), as_rgb(grey))
    for wrong in (np.zeros((3, 4, 3)) - 1, np.full((3, 4, 3), 300), np.zeros((0, 4, 3)), np.full((3, 4), np.nan), "a"):
        with pytest.raises(InputError, match="is no image"):
            as_rgb(wrong)


def test_many_images_are_predicted_like_few(opened, tiny_sample, monkeypatch):
    paths = [*OfficialFolders(tiny_sample).images("test").values()]
    for network in (opened.unet, *opened.networks):
        network.seen = 0
    plain = [one.deciding for one in opened.diagnose(paths)]
    monkeypatch.setattr("pipeline.inference.UNCOMPILED", 0)
    compiled = [one.deciding for one in opened.diagnose(paths)]
    np.testing.assert_allclose(compiled, plain, atol=1e-3)


def test_the_networks_that_come_along_are_taken_where_there_is_no_run_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_run() == TRAINED
    RunFolder("runs/isic2017").vote.mkdir(parents=True)
    RunFolder("runs/isic2017").vote_network("vote").touch()
    assert default_run() == Path("runs/isic2017")


def test_the_mask_of_a_diagnosis_is_0_or_255_however_small_it_is_shown(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(finished_run, "PREVIEW", 33)
    path = tmp_path / "image.png"
    write_image(path, np.full((96, 128, 3), 200, np.uint8))
    mask = np.zeros((96, 128), np.uint8)
    mask[20:50, 30:71] = 255
    found, _ = load_run(finished).look(lambda path, mask: None, path, mask)
    assert found.mask.shape == found.image.shape[:2] == (33, 44)
    assert set(np.unique(found.mask)) == {0, 255}


def test_a_run_is_not_opened_with_settings_that_did_not_make_it(finished, tmp_path):
    with pytest.raises(InputError, match="image_size = 80, but"):
        load_run(finished, image_size=80)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_run(tmp_path)


def test_augmentation_is_that_of_the_stages_unless_it_is_asked_for(opened, finished, tiny_sample):
    path = next(iter(OfficialFolders(tiny_sample).images("test").values()))
    plain, augmented = opened, load_run(finished, test_time_augmentation=True)
    assert plain.networks[0].network is plain.networks[0].plain
    assert augmented.networks[0].network is not augmented.networks[0].plain
    assert not np.array_equal(plain.diagnose(path).deciding, augmented.diagnose(path).deciding)


def test_masks_and_boxes_are_those_of_the_stages(predicted, finished, tiny_sample):
    table = pd.read_csv(predicted[1] / "predictions.csv", index_col="image_id")
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
    names = pd.read_csv(output / "predictions.csv")["image_id"]
    assert {"ISIC_0000024", "ISIC_0000024_2"} < set(names)
    assert {path.stem for path in (output / "pictures").iterdir()} == set(names)
    assert all(cv2.imread(str(path)).std() > 10 for path in (output / "pictures").iterdir())
    assert "no diagnosis" in stdout
    assert re.search("1 of 9 images, .*elsewhere.* first: grey", stdout)
    assert DRAWN in stdout
    assert DRAWN in (output / "NO_DIAGNOSIS.txt").read_text()
    table = pd.read_csv(output / "predictions.csv", keep_default_na=False)
    assert table["remarks"].str.contains(DRAWN).all()
    assert table["remarks"].str.contains("grey").sum() == 1
    assert set(table["suspect"]) <= {"yes", "no"}
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
    add_rows(path, rows[:1], first=True)
    kept = pd.read_csv(path.with_name("predictions_before.csv"))
    assert list(kept["file"]) == ["of a former run.jpg"], "the first of several stopped runs may have had the most rows"


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
    assert fails(predict(images, "--run-dir", run_dir), "_test.csv was made from older files in crops/test", remedy)
    assert fails(stage("cls_predict.py", run_dir), "crops_t", "was made with crop_margin_px", "for both")
    assert not (run_dir / "own").exists()


def test_without_records_a_run_is_predicted_with_settings_that_are_named(predict, finished, tiny_sample, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("manifests"))
    options = [OfficialFolders(tiny_sample).images("test")["ISIC_0000024"], "--run-dir", run_dir]
    assert fails(predict(*options), "has no record of the settings of its crops", "--config")
    result = predict(*options, "--config", run_dir / "vote" / "config.json", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "predictions.csv").exists()


def test_bad_images_are_named_and_those_of_a_folder_passed_over(predict, finished, tiny_sample, tmp_path):
    image, folder = OfficialFolders(tiny_sample).images("test")["ISIC_0000024"], tmp_path / "images"
    folder.mkdir()
    (folder / "cut.jpg").write_bytes(image.read_bytes()[:1500])
    (folder / "text.png").write_text("text")
    (folder / "phone.heic").touch()
    options = ["--run-dir", finished, "--output", tmp_path / "out", "--no-pictures", "--sensitivity", 0.95]
    assert fails(predict(*folder.glob("*.*g"), image, *options), "cut.jpg", "text.png", "--skip-bad-images")
    assert fails(predict(folder, *options), "none of the images can be read")
    assert not (tmp_path / "out").exists()
    result = predict(folder, image, *options)
    assert result.returncode == 0, result.stderr
    assert "phone.heic" in result.stdout
    assert re.search("passed over 2 of 3 images: .*cut.jpg.*text.png", result.stdout)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert list(table["file"]) == [str(image)]
    assert (table["suspect"] == "yes").equals(table["decision"] == "melanoma")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv", "NO_DIAGNOSIS.txt"}


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
    result = predict(*options, "--explain", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert re.search("passed over 1 of 5 images: .*spoilt.jpg", result.stdout)
    assert "tiny, 1x1 pixels" in result.stdout
    assert r"caf\udce9.jpg" in result.stdout
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", encoding_errors="surrogateescape")
    assert {os.path.basename(os.fsencode(file)) for file in table["file"]} == {*names, b"1x1.png"}
    assert all((tmp_path / "out" / "pictures" / f"{name}.png").exists() for name in table["image_id"])
    assert predict(*options).returncode == 0, "the same images once more"


def test_predictions_of_other_images_are_not_written_over(predict, predicted, finished, tiny_sample):
    output = predicted[1]
    table = (output / "predictions.csv").read_bytes()
    image = OfficialFolders(tiny_sample).images("validation")
    result = predict(*image.values(), "--run-dir", finished, "--output", output)
    assert fails(result, output / "predictions.csv", "lost: 9", "another --output")
    assert (output / "predictions.csv").read_bytes() == table


def test_a_table_may_be_written_over_where_its_images_are_named_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "predictions.csv"
    refuse_overwrite(table, [])
    table.write_text("file,melanoma\na.jpg,0.5\n")
    refuse_overwrite(table, [tmp_path / "a.jpg", tmp_path / "b.jpg"])
    with pytest.raises(InputError, match=r"predictions\.csv holds a\.jpg \(.* lost: 1\)"):
        refuse_overwrite(table, [tmp_path / "b.jpg"])
    table.write_text("melanoma\n0.5\n")
    with pytest.raises(InputError, match="is no table of predict"):
        refuse_overwrite(table, [tmp_path / "a.jpg"])


def test_masks_that_others_made_are_not_written_over(tmp_path):
    refuse_files_of_others(tmp_path)
    (tmp_path / "masks").mkdir()
    refuse_files_of_others(tmp_path)
    (tmp_path / "masks" / "a_segmentation.png").touch()
    with pytest.raises(InputError, match="masks holds files, but"):
        refuse_files_of_others(tmp_path)
    (tmp_path / "NO_DIAGNOSIS.txt").touch()
    refuse_files_of_others(tmp_path)


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
    assert re.search(r"ignored 3 files of .*: deeper, g\.heic, h\.dng$", capsys.readouterr().out.strip())


def test_names_are_distinct_whatever_folder_suffix_and_case(tmp_path):
    paths = [tmp_path / name for name in ("a/p.jpg", "b/p.jpg", "b/P.png", "p_2.jpg", "q.jpg")]
    assert distinct_names(paths) == ["p", "p_2", "P_3", "p_2_2", "q"]


def test_transparent_images_are_found(tmp_path):
    for mode, count in {"RGB": 0, "L": 0, "RGBA": 1, "LA": 1}.items():
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode}.png")
        assert len(file_remarks(tmp_path / f"{mode}.png")) == count
    Image.new("RGBA", (8, 8), (9, 9, 9, 255)).save(tmp_path / "opaque.png")
    assert file_remarks(tmp_path / "opaque.png") == []


def test_an_image_of_one_colour_grey_or_tiny_gets_a_remark():
    rng, size = np.random.default_rng(0), (300, 400)
    colour = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    grey = np.repeat(colour[..., :1], 3, axis=2)
    skin = np.full((*size, 3), (200, 150, 120), np.uint8) + rng.integers(0, 4, (*size, 3)).astype(np.uint8)
    skin[:5, :5] = 0
    assert picture_remarks(colour, size) == []
    assert [remark.split(":")[0] for remark in picture_remarks(grey, size)] == ["grey"]
    assert [remark.split(":")[0] for remark in picture_remarks(skin, size)] == ["all of one colour"]
    assert picture_remarks(colour[:50, :60], (50, 60)) == ["tiny, 60x50 pixels: details are missing"]


def test_each_call_answers_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "a.b").mkdir()
    assert folder_name((tmp_path / "photo.jpg",)) == "photo"
    assert folder_name((tmp_path / "one", tmp_path / "two", tmp_path / "three")) == "one_and_2_more"
    assert folder_name((Path("/"),)) == "root"
