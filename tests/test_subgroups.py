"""Subgroups of images, and figures of other classes than those of ISIC 2017."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import evaluate
import seg_predict
from config import PRESETS
from data.classes import ISIC_2017
from data.images import write_image
from data.probabilities import read_scores, write_probabilities
from evaluation.bootstrap import measure
from evaluation.metrics import diagnosis_metrics
from evaluation.subgroups import measure_subgroups, subgroups
from evaluation.tables import metrics_tables
from pipeline.networks import read_classes
from pipeline.paths import RunFolder
from utils.errors import InputError
from utils.files import write_json

SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def example(classes, count=84, seed=0):
    """Labels of which each class has as many, and probabilities that are better than chance."""
    rng = np.random.default_rng(seed)
    labels = np.eye(len(classes))[np.arange(count) % len(classes)]
    return labels, rng.dirichlet(np.ones(len(classes)), count) * 0.7 + labels * 0.3


def test_figures_of_seven_classes_are_those_of_scikit_learn():
    labels, probabilities = example(SEVEN)
    figures = diagnosis_metrics(labels, probabilities, SEVEN)
    truth, answers = labels.argmax(axis=1), probabilities.argmax(axis=1)
    areas = [roc_auc_score(labels[:, k], probabilities[:, k]) for k in range(7)]
    assert [figures[f"{name}.auc"] for name in SEVEN] == pytest.approx(areas)
    assert figures["mean.auc"] == figures["macro_auc"] == pytest.approx(np.mean(areas))
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, answers))
    assert figures["accuracy"] == pytest.approx(np.mean(truth == answers))
    assert "accuracy_two_tasks" not in figures


def test_of_two_classes_the_figures_are_those_of_the_positive_one(tmp_path):
    classes = ("malignant", "benign")
    labels, probabilities = example(classes)
    figures = diagnosis_metrics(labels, probabilities, classes)
    assert (
        figures["malignant.auc"]
        == figures["mean.auc"]
        == pytest.approx(roc_auc_score(labels[:, 0], probabilities[:, 0]))
    )
    assert not any(name.startswith("benign.") for name in figures)
    ids = [f"i{k}" for k in range(len(labels))]
    pd.DataFrame({"image_id": ids, "malignant": probabilities[:, 0]}).to_csv(tmp_path / "one.csv", index=False)
    np.testing.assert_allclose(read_scores(tmp_path / "one.csv", ids, classes), probabilities)


def test_tables_are_about_the_classes():
    labels, probabilities = example(SEVEN)
    text = metrics_tables({"test": measure(labels, {"vote": probabilities}, None, 20, classes=SEVEN)})
    assert "### test: 7 classes" in text
    assert "mean of the 7 tasks" in text
    for name in SEVEN:
        assert f"AUC {name}" in text
        assert f"{name} against the rest" in text
    assert "melanoma" not in text
    assert "the paper" not in text


def test_columns_are_cut_by_value_at_quartiles_or_at_edges():
    found = subgroups("sex", ["Male", "female ", "", "male", "unknown"])
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "female": [False, True, False, False, False],
        "male": [True, False, False, True, False],
        "unknown": [False, False, True, False, True],
    }
    ages = [str(age) for age in range(1, 9)]
    assert {name: rows.sum() for name, rows in subgroups("age", [*ages, "NaN"]).items()} == {
        **{"age < 2.75": 2, "2.75 <= age < 4.5": 2, "4.5 <= age < 6.25": 2, "6.25 <= age": 2, "unknown": 1}
    }
    dates = [str(20170100 + day) for day in range(1, 13)]
    assert sum(rows.sum() for rows in subgroups("date", dates).values()) == 12
    cut = subgroups("age", ages, [4, 90])
    assert {name: rows.sum() for name, rows in cut.items()} == {"age < 4": 3, "4 <= age < 90": 5}
    with pytest.raises(ValueError, match="old"):
        subgroups("age", ["old"], [4])


def test_a_subgroup_has_the_figures_of_its_images():
    labels, probabilities = example(SEVEN)
    rows = np.arange(84) < 50
    found = measure_subgroups(labels, {"vote": probabilities}, {"young": rows}, 20, 0, classes=SEVEN)["young"]
    assert found["images"] == 50
    assert found["methods"]["vote"] == diagnosis_metrics(labels[rows], probabilities[rows], SEVEN)
    low, high = found["intervals"]["vote"]["accuracy"]
    assert low < found["methods"]["vote"]["accuracy"] < high


@pytest.fixture
def listed(tmp_path):
    """Folder with dataset.csv of two classes, and a table of predictions of its test split."""
    _, probabilities = example(("melanoma", "nevus"), 40)
    rows = [
        f"{k}.png,{('melanoma', 'nevus')[k % 2]},{'test' if k < 30 else 'training'},{('m', 'f', '')[k % 3]},{20 + k}"
        for k in range(40)
    ]
    (tmp_path / "dataset.csv").write_text("\n".join(["image,label,split,sex,age_approx", *rows]))
    write_probabilities(tmp_path / "vote_test.csv", range(30), probabilities[:30], ("melanoma", "nevus"))
    return tmp_path


def score(folder, **options):
    options = {"labels": folder / "dataset.csv", "split": "test", "repetitions": 20, "output": folder / "out"} | options
    evaluate.main(evaluate.Settings((folder / "vote_test.csv",), **options))
    return json.loads((folder / "out" / "evaluation.json").read_text())[options["split"] or options["labels"].stem]


def test_evaluate_takes_classes_and_columns_from_the_tables(listed, capsys):
    measured = score(listed, by=("sex", "age=30,40", "age=35"))
    assert measured["classes"] == ["melanoma", "nevus"]
    assert measured["images"] == 30
    sizes = {c: {name: of["images"] for name, of in of_c.items()} for c, of_c in measured["subgroups"].items()}
    assert sizes["sex"] == {"f": 10, "m": 10, "unknown": 10}
    assert sizes["age"] == {"age < 30": 10, "30 <= age < 40": 10, "40 <= age": 10}
    assert set(sizes["age=35"]) == {"age < 35", "35 <= age"}
    said = capsys.readouterr().out
    assert "### test: by sex" in said
    assert "| 30 <= age < 40 (10 images): vote_test |" in said
    with pytest.raises(InputError, match=r"--by site: .*dataset.csv has the columns image, sex, age_approx"):
        score(listed, by=("site",))
    with pytest.raises(InputError, match=r"--by sex=1: .*give numbers as edges"):
        score(listed, by=("sex=1",))
    with pytest.raises(InputError, match=r"--by age=20,nan: .*give numbers as edges"):
        score(listed, by=("age=20,nan",))
    (listed / "other.csv").write_text("image,site\n" + "".join(f"{k}.png,{'ab'[k % 2]}\n" for k in range(40)))
    assert set(score(listed, by=("site",), columns=listed / "other.csv")["subgroups"]["site"]) == {"a", "b"}


def test_evaluate_draws_the_images_of_a_group_together(listed):
    alone = score(listed, repetitions=200)["intervals"]["vote_test"]["accuracy"]
    table = pd.read_csv(listed / "dataset.csv")
    table["group"] = [f"patient {k % 2 + 2 * (k // 10)}" for k in range(40)]  # five of a class each
    table.to_csv(listed / "dataset.csv", index=False)
    measured = score(listed, repetitions=200, by=("sex",))
    table = table[table["split"] == "test"]
    labels = np.eye(2)[(table["label"] == "nevus").astype(int)]
    scores = read_scores(listed / "vote_test.csv", [str(k) for k in range(30)], ("melanoma", "nevus"))
    groups, classes = table["group"].tolist(), ("melanoma", "nevus")
    expected = measure(labels, {"vote_test": scores}, repetitions=200, classes=classes, groups=groups)["intervals"]
    assert measured["intervals"]["vote_test"] == expected["vote_test"]
    assert measured["intervals"]["vote_test"]["accuracy"] != alone
    assert measured["subgroups"]["sex"]["f"]["images"] == 10


def test_the_metadata_of_the_challenge_are_found_beside_the_labels(tmp_path):
    labels, probabilities = example(("melanoma", "seborrheic_keratosis", "nevus"), 30)
    table = tmp_path / "ISIC-2017_Test_v2_Part3_GroundTruth.csv"
    pd.DataFrame(labels[:, :2], [f"i{k}" for k in range(30)], ["melanoma", "seborrheic_keratosis"]).to_csv(
        table, index_label="image_id"
    )
    write_probabilities(tmp_path / "vote_test.csv", [f"i{k}" for k in range(30)], probabilities, ISIC_2017)
    metadata = tmp_path / "ISIC-2017_Test_v2_Data" / "ISIC-2017_Test_v2_Data_metadata.csv"
    metadata.parent.mkdir()
    rows = [f"i{k},{40 + k % 4},{('male', 'female')[k % 2]}\n" for k in range(30)]
    metadata.write_text("image_id,age_approximate,sex\n" + "".join(rows))
    measured = score(tmp_path, labels=table, split=None, by=("sex", "age"))
    assert {name: of["images"] for name, of in measured["subgroups"]["sex"].items()} == {"female": 15, "male": 15}
    assert set(measured["subgroups"]["age"]) == {"40", "41", "42", "43"}


def test_a_network_has_the_classes_that_lie_beside_it(tmp_path):
    write_json(tmp_path / "classes.json", SEVEN)
    assert read_classes(tmp_path / "model.keras", "training.py") == SEVEN
    for damage in (lambda file: file.write_text("{"), lambda file: file.unlink()):
        damage(tmp_path / "classes.json")
        with pytest.raises(InputError, match=r"classes.json is missing or damaged: .* `python training.py -x --over"):
            read_classes(tmp_path / "model.keras", "training.py -x")


def test_a_unet_that_was_trained_elsewhere_is_copied_and_never_written_over_another(tmp_path, monkeypatch):
    for folder, content in (("theirs", b"their network"), ("trained", b"own network")):
        (tmp_path / folder / "unet").mkdir(parents=True)
        (tmp_path / folder / "unet/unet.keras").write_bytes(content)
    (tmp_path / "theirs/unet/history.csv").write_text("epoch,loss,val_loss\n")
    write_image(tmp_path / "data/ISIC-2017_Test_v2_Data/a.png", np.zeros((8, 8, 3), np.uint8))
    config = replace(PRESETS["sample"], data_dir=tmp_path / "data", splits=("test",), run_dir=tmp_path / "own")
    files = []
    monkeypatch.setattr(seg_predict, "write_masks", lambda config, split, images, network, load: files.append(network))
    for given in (tmp_path / "theirs", tmp_path / "theirs/unet/unet.keras"):
        seg_predict.main(replace(config, unet=given))
        own = RunFolder(config.run_dir).unet
        assert files[-1] == own.network
        assert own.network.read_bytes() == b"their network"
        assert own.history.exists()
    with pytest.raises(InputError, match=r"no record of how .*unet.keras was made: run `python seg_predict"):
        seg_predict.main(replace(config, unet=tmp_path / "theirs", run_dir=tmp_path / "trained"))
    assert (tmp_path / "trained/unet/unet.keras").read_bytes() == b"own network"
    gone = replace(config, unet=tmp_path / "none")
    seg_predict.main(gone)  # as config.json of the run folder names it: the copy is enough
    own.network.write_bytes(b"trained after the copy")
    record = tmp_path / "own/manifests/unet.jsonl"
    record.write_text(record.read_text().replace('"kind": "copied"', '"kind": "unet"'))
    seg_predict.main(replace(config, unet=tmp_path / "theirs"))  # as config.json names it
    assert own.network.read_bytes() == b"trained after the copy"
    monkeypatch.setattr("sys.argv", ["seg_predict.py", "--unet", "none"])
    with pytest.raises(InputError, match=r"none is missing: --unet takes a file of a U-Net, or a run folder"):
        seg_predict.main(gone)
