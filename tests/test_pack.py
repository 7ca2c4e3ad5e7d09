"""A packed run: small files, the same answers, and a refusal of whatever was changed."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from config import PRESETS
from data.classes import ISIC_2017 as CLASSES
from data.official import OfficialFolders
from models.backbones import classifier
from models.compact import SMALL_KERNEL, compact, load
from models.unet import unet_with_encoder
from pipeline import pack
from pipeline.finished_run import load_run
from pipeline.paths import RunFolder
from pipeline.settings import starting_point
from tests.conftest import BACKBONES, tiny_classifier
from utils.errors import InputError
from utils.files import write_json

CARD = "# Card\n\n<!-- figures -->\nnone yet\n<!-- end of figures -->\n\n## Caveats\n"


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory):
    """Folder of the packed finished run, with a model card; read only."""
    folder = tmp_path_factory.mktemp("packed") / "trained"
    folder.mkdir()
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    pack.main(pack.Settings(finished, folder))
    return folder


@pytest.fixture
def copied(packed, tmp_path):
    """A copy of the packed run to change."""
    return shutil.copytree(packed, tmp_path / "trained")


def test_packed_networks_give_the_same_probabilities(packed):
    about = json.loads((packed / "about.json").read_text(encoding="utf-8"))
    assert set(about["largest_difference"]) == {"unet", *BACKBONES}
    assert max(about["largest_difference"][name] for name in BACKBONES) < 1e-3
    assert about["largest_difference"]["unet"] < 1e-2  # of a pixel, the worst of all
    assert about["drawn"]


def test_a_packed_run_opens_like_any_other(packed, tiny_sample):
    run = load_run(packed)
    assert run.classes == CLASSES
    assert run.config.backbones == BACKBONES
    assert not list(packed.rglob("manifests"))
    assert "/" not in json.loads((packed / "config.json").read_text(encoding="utf-8"))["weights"]
    paths = list(OfficialFolders(tiny_sample).images("validation").values())
    found = run.diagnose(paths)
    kept = pd.read_csv(packed / "predictions" / "vote_validation.csv", index_col="image_id")[list(CLASSES)]
    np.testing.assert_allclose(np.stack([one.deciding for one in found]), kept, atol=1e-3)


def test_the_card_has_the_figures_and_keeps_its_text(packed):
    card = (packed / "README.md").read_text(encoding="utf-8")
    assert "none yet" not in card
    assert card.startswith("# Card")
    assert card.endswith("## Caveats\n")
    figures = json.loads((packed / "results" / "metrics.json").read_text(encoding="utf-8"))["validation"]["methods"]
    assert f"{figures['mean']['mean.auc']:.3f}" in card
    points = json.loads((packed / "results" / "operating_points.json").read_text(encoding="utf-8"))
    assert points["mean"]["split"] == "validation"
    assert f"{points['mean']['points'][0]['threshold']:.3f}" in card


def test_a_changed_or_missing_file_is_refused(copied):
    with open(copied / "unet" / "unet.keras", "ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"unet\.keras does not have the SHA-256"):
        load_run(copied)
    (copied / "unet" / "unet.keras").unlink()
    with pytest.raises(InputError, match=r"unet\.keras is missing"):
        load_run(copied)


def test_other_settings_than_those_of_a_packed_run_are_refused(packed):
    with pytest.raises(InputError, match="image_size = 80, but"):
        load_run(packed, image_size=80)


def test_a_packed_run_keeps_its_settings_when_a_preset_changes(packed, monkeypatch):
    monkeypatch.setitem(PRESETS, "sample", replace(PRESETS["sample"], image_size=80))
    start, _, edited = starting_point(["--run-dir", str(packed)])
    assert (start.image_size, edited) == (72, {})


def test_a_network_is_packed_twice_into_the_same_bytes(packed, finished, tmp_path):
    for name in ("unet/unet.keras", "vote/vote.keras"):
        compact(finished / name, tmp_path / "again.keras")
        assert (tmp_path / "again.keras").read_bytes() == (packed / name).read_bytes()


def test_a_packed_run_is_replaced(packed, copied, tmp_path):
    again = shutil.copytree(packed, tmp_path / "again")
    (again / "unet" / "unet.keras").write_bytes(b"of another run")
    (again / "onnx").mkdir()
    (again / "onnx" / "unet.onnx").touch()
    pack.replace_run(RunFolder(copied), RunFolder(again))
    load_run(again)  # its sums are right
    assert (again / "onnx" / "unet.onnx").exists(), "which no run brought along"


def test_what_is_no_packed_run_is_not_replaced(packed, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt is no part of a packed run"):
        pack.main(pack.Settings(packed, tmp_path))


def test_a_classifier_that_packing_would_change_too_much_is_refused(tmp_path, monkeypatch):
    source, target = (RunFolder(tmp_path / name) for name in ("run", "packed"))
    file = source.backbone("resnet50").network
    file.parent.mkdir(parents=True)
    tiny_classifier("resnet50", image_size=16, classes=3).save(file)
    write_json(file.with_name("classes.json"), CLASSES)
    pack.compact_with_classes(file, target.backbone("resnet50").network)
    tried = []

    def compact_and_note(*files, **options):
        tried.append(options.get("small_kernel"))
        compact(*files, **options)

    monkeypatch.setattr(pack, "compact", compact_and_note)
    monkeypatch.setattr(pack, "LARGEST_DIFFERENCE", 0)
    run = SimpleNamespace(config=replace(PRESETS["sample"], masks="none", backbones=("resnet50",)), files=source)
    crops = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    with pytest.raises(InputError, match="cannot be packed: its probabilities would change by"):
        pack.limit_differences(run, target, [], crops)
    assert tried == [None, *pack.SMALL_KERNELS[1:]]  # first with more kernels stored precisely


def test_a_run_that_cannot_be_packed_leaves_nothing(finished, tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("no")

    monkeypatch.setattr(pack, "pack_networks", refuse)
    with pytest.raises(InputError, match="no"):
        pack.main(pack.Settings(finished, tmp_path / "packed"))
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_too_large_is_refused(packed, monkeypatch):
    monkeypatch.setattr(pack, "LARGEST_RUN", 1e4)
    with pytest.raises(InputError, match=r"0 MB at most .*fewer --backbones"):
        pack.refuse_large_files(RunFolder(packed))
    monkeypatch.setattr(pack, "LARGEST_FILE", 1e3)
    with pytest.raises(InputError, match="pack another network"):
        pack.refuse_large_files(RunFolder(packed))


@pytest.mark.parametrize(
    "build", [lambda: classifier("xception", 96, weights="none", head_dropout=0.3), None], ids=["xception", "unet"]
)
def test_a_compact_network_is_opened_with_every_weight_in_its_place(build, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = build() if build else unet_with_encoder("resnet50", 64, 4, weights="none")
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=weight.shape).astype(weight.dtype) for weight in network.get_weights()])
    network.save(tmp_path / "network.keras")
    compact(tmp_path / "network.keras", tmp_path / "small.keras")
    keras.config.set_dtype_policy("float32")
    by_keras = keras.saving.load_model(tmp_path / "small.keras", compile=False)
    opened = load(tmp_path / "small.keras")
    assert [weight.path for weight in opened.weights] == [weight.path for weight in by_keras.weights]
    for ours, theirs, before in zip(opened.weights, by_keras.weights, network.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(ours, before, rtol=1e-3, atol=1e-6)
    assert {layer.compute_dtype for layer in opened.layers} == {"float32"}
    assert {variable.dtype for variable in opened.trainable_variables} == {"float32"}
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("small", "network")]
    assert sizes[0] < 0.55 * sizes[1]


def test_a_weight_that_16_bits_cannot_hold_is_refused(tmp_path):
    network = keras.Sequential([keras.Input((SMALL_KERNEL,)), keras.layers.Dense(2)])
    network.set_weights([np.full((SMALL_KERNEL, 2), 1e5), np.zeros(2)])
    network.save(tmp_path / "network.keras")
    with pytest.raises(InputError, match=r"network\.keras holds a weight in layers/dense"):
        compact(tmp_path / "network.keras", tmp_path / "small.keras")


def test_operating_points_of_a_method_that_is_not_kept_are_refused(copied):
    with pytest.raises(InputError, match=r"sensitivity = 0\.9: .* are 0\.82, 0\.89, 0\.95"):
        load_run(copied, sensitivity=0.9)
    run = load_run(copied, sensitivity=0.95)
    assert run.point.sensitivity == 0.95
    assert run.point.split == "validation"
