import numpy as np
import pytest

from data.official import OfficialFolders, label_table
from data.own_images import print_passed_over
from utils.errors import InputError

IDS = ["ISIC_0000001", "ISIC_0000002", "ISIC_0000003"]
HEADER = "image_id,melanoma,seborrheic_keratosis\n"
TABLE = "ISIC-2017_Training_Part3_GroundTruth.csv"


def write_labels(folder, content):
    path = folder / TABLE
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("split", "official"), [("training", "Training"), ("validation", "Validation"), ("test", "Test_v2")]
)
def test_each_split_is_found_under_its_official_name(tmp_path, split, official):
    touch(tmp_path / f"ISIC-2017_{official}_Data", "ISIC_0000001.jpg")
    touch(tmp_path / f"ISIC-2017_{official}_Part1_GroundTruth", "ISIC_0000001_segmentation.png")
    image = tmp_path / f"ISIC-2017_{official}_Data" / "ISIC_0000001.jpg"
    mask = tmp_path / f"ISIC-2017_{official}_Part1_GroundTruth" / "ISIC_0000001_segmentation.png"
    assert OfficialFolders(tmp_path).images(split) == {"ISIC_0000001": image}
    assert OfficialFolders(tmp_path).masks(split, ["ISIC_0000001"]) == {"ISIC_0000001": mask}
    assert label_table(tmp_path, split) == tmp_path / f"ISIC-2017_{official}_Part3_GroundTruth.csv"


def test_superpixels_and_metadata_are_passed_over_and_images_sorted(tmp_path):
    touch(
        tmp_path / "ISIC-2017_Training_Data",
        *("ISIC_0000010.jpg", "ISIC_0000002.jpg", "ISIC_0000002_superpixels.png"),
        "ISIC-2017_Training_Data_metadata.csv",
    )
    assert list(OfficialFolders(tmp_path).images("training")) == ["ISIC_0000002", "ISIC_0000010"]


def test_upper_case_suffixes_are_taken_and_one_id_twice_is_refused(tmp_path):
    folder = tmp_path / "ISIC-2017_Test_v2_Data"
    touch(folder, "ISIC_0000003.JPG", "ISIC_0000001.jpg", "ISIC_0000002.Jpg")
    assert list(OfficialFolders(tmp_path).images("test")) == IDS
    assert OfficialFolders(tmp_path).images("test")["ISIC_0000003"] == folder / "ISIC_0000003.JPG"
    touch(folder, "ISIC_0000003.jpg")
    with pytest.raises(InputError, match=r"ISIC_0000003\.(jpg|JPG) and ISIC_0000003\.(jpg|JPG) have the same image id"):
        OfficialFolders(tmp_path).images("test")


def test_other_formats_and_ids_are_taken(tmp_path):
    names = ("ISIC_1.jpeg", "ISIC_2.png", "clinic-3.TIF", "ISIC_4.webp", "ISIC_5.bmp", "ISIC_6.jfif")
    touch(tmp_path / "ISIC-2017_Test_v2_Data", *names, "ISIC_1_superpixels.png", "ISIC_1_Segmentation.png", "notes.txt")
    assert set(OfficialFolders(tmp_path).images("test")) == {name.partition(".")[0] for name in names}


def test_what_is_no_image_is_named_by_the_stages(tmp_path, capsys):
    folder = tmp_path / "ISIC-2017_Test_v2_Data"
    touch(folder, "a.heic", "b.jpg", "c_superpixels.png", "d_metadata.csv", ".hidden")
    print_passed_over([folder])
    said = capsys.readouterr().out
    assert said.startswith(f"ignored 1 files of {folder}")
    assert said.endswith(": a.heic\n")


def within_itself(data_dir):
    for folder in list(data_dir.iterdir()):
        folder.rename(data_dir / "moved")
        folder.mkdir()
        (data_dir / "moved").rename(folder / folder.name)


def lower_case(data_dir):
    for folder in list(data_dir.iterdir()):
        folder.rename(data_dir / folder.name.lower())


@pytest.mark.parametrize("change", [within_itself, lower_case])
def test_other_names_and_places_of_folders_are_found(tmp_path, change):
    touch(tmp_path / "ISIC-2017_Training_Data", "ISIC_0000001.jpg")
    touch(tmp_path / "ISIC-2017_Training_Part1_GroundTruth", "ISIC_0000001_Segmentation.png")
    change(tmp_path)
    assert OfficialFolders(tmp_path).images("training")["ISIC_0000001"].exists()
    assert OfficialFolders(tmp_path).masks("training", ["ISIC_0000001"])["ISIC_0000001"].exists()
    write_labels(tmp_path, HEADER + "ISIC_0000001,1,0\n")
    if change is lower_case:
        (tmp_path / TABLE).rename(tmp_path / TABLE.lower())
    assert OfficialFolders(tmp_path).labels("training", ["ISIC_0000001"]).tolist() == [[1, 0, 0]]


def test_masks_are_found_whatever_the_case_of_their_end_and_one_image_has_one(tmp_path):
    folder = tmp_path / "ISIC-2017_Training_Part1_GroundTruth"
    touch(folder, "ISIC_0000001_Segmentation.png", "ISIC_0000002_segmentation.bmp", "ISIC_0000004.png")
    paths = OfficialFolders(tmp_path).masks("training", IDS)
    assert [paths[image_id].name for image_id in IDS] == [
        *("ISIC_0000001_Segmentation.png", "ISIC_0000002_segmentation.bmp", "ISIC_0000003_segmentation.png")
    ]
    touch(folder, "ISIC_0000001_segmentation.png")
    with pytest.raises(InputError, match="are masks of one image: remove one"):
        OfficialFolders(tmp_path).masks("training", IDS)


def test_the_remedy_for_a_missing_folder_is_that_of_its_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, remedy in (
        ("data/sample", r"missing: make the built-in sample with `python -m data\.draw_sample`$"),
        (
            "data/other",
            r"`python -m data\.download --data-dir data/other` .* `python -m data\.draw_sample --data-dir data/",
        ),
    ):
        with pytest.raises(InputError, match=remedy):
            OfficialFolders(folder).images("training")
    touch(tmp_path / "flat", "ISIC_0000001.jpg")
    with pytest.raises(InputError, match="flat holds images itself, move those of each split into such a folder"):
        OfficialFolders("flat").images("training")


def test_missing_image_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="ISIC-2017_Test_v2_Data is missing"):
        OfficialFolders(tmp_path).images("test")


def test_folder_without_images_is_named(tmp_path):
    touch(tmp_path / "ISIC-2017_Test_v2_Data", "ISIC_0000001_superpixels.png")
    with pytest.raises(InputError, match="ISIC-2017_Test_v2_Data holds no"):
        OfficialFolders(tmp_path).images("test")


def test_masks_come_in_the_order_of_the_ids(tmp_path):
    touch(tmp_path / "ISIC-2017_Training_Part1_GroundTruth", *(f"{i}_segmentation.png" for i in IDS))
    assert list(OfficialFolders(tmp_path).masks("training", IDS[::-1])) == IDS[::-1]


def test_a_missing_folder_of_masks_is_named(tmp_path):
    with pytest.raises(InputError, match="ISIC-2017_Training_Part1_GroundTruth is missing"):
        OfficialFolders(tmp_path).masks("training", IDS)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_labels_are_joined_by_id_and_one_hot(tmp_path, order):
    rows = ["ISIC_0000001,1.0,0.0\n", "ISIC_0000002,0.0,1.0\n", "ISIC_0000003,0.0,0.0\n"]
    write_labels(tmp_path, HEADER + "".join(rows[k] for k in order))
    labels = OfficialFolders(tmp_path).labels("training", IDS)
    np.testing.assert_array_equal(labels, np.eye(3))  # melanoma, seborrheic keratosis, nevus
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(OfficialFolders(tmp_path).labels("training", IDS[::-1]), np.eye(3)[::-1])


def test_byte_order_mark_windows_line_ends_and_further_columns_are_accepted(tmp_path):
    text = "seborrheic_keratosis,age,melanoma,image_id\r\n0,70,1,ISIC_0000001\r\n1,,0,ISIC_0000002\r\n"
    write_labels(tmp_path, b"\xef\xbb\xbf" + text.encode())
    np.testing.assert_array_equal(OfficialFolders(tmp_path).labels("training", IDS[:2]), [[1, 0, 0], [0, 1, 0]])


def test_split_without_labels_is_none_unless_they_are_required(tmp_path):
    assert OfficialFolders(tmp_path).labels("training", IDS) is None
    with pytest.raises(InputError, match=f"{TABLE} is missing"):
        OfficialFolders(tmp_path).labels("training", IDS, required=True)


@pytest.mark.parametrize("name", ["image", "image_name", "isic_id"])
def test_ids_may_stand_under_other_groups_names(tmp_path, name):
    write_labels(tmp_path, f"{name},melanoma,seborrheic_keratosis\nISIC_0000002,0,1\nISIC_0000001,1,0\n")
    np.testing.assert_array_equal(OfficialFolders(tmp_path).labels("training", IDS[:2]), [[1, 0, 0], [0, 1, 0]])


def test_labels_of_any_further_images_can_be_let_pass(tmp_path):
    write_labels(tmp_path, f"{HEADER}ISIC_0000001,1,0\nISIC_0000002,0,1\n")
    with pytest.raises(InputError, match="ISIC_0000002"):
        OfficialFolders(tmp_path).labels("training", IDS[:1])
    np.testing.assert_array_equal(OfficialFolders(tmp_path).labels("training", IDS[:1], left_out=None), [[1, 0, 0]])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param(f"{HEADER}ISIC_0000001,1,0,0\n", "rows of 4 fields for 3 columns", id="longer rows"),
        pytest.param(f"{HEADER}ISIC_0000001,1,0,0,0\n", "rows of 5 fields for 3 columns", id="much longer rows"),
        pytest.param("image_id,melanoma\nISIC_0000001,0\n", "seborrheic_keratosis", id="missing column"),
        pytest.param("id,melanoma,seborrheic_keratosis\nISIC_0000001,0,0\n", "image_id", id="no id column"),
        pytest.param(f"{HEADER}ISIC_0000001,0,0\nISIC_0000001,0,0\n", "ISIC_0000001", id="duplicate id"),
        pytest.param(f"{HEADER}ISIC_0000001,1,1\n", "ISIC_0000001", id="both diagnoses"),
        pytest.param(f"{HEADER}ISIC_0000001,2,0\n", "ISIC_0000001", id="value 2"),
        pytest.param(f"{HEADER}ISIC_0000001,0.5,0\n", "ISIC_0000001", id="value 0.5"),
        pytest.param(f"{HEADER}ISIC_0000001,-1,1\n", "ISIC_0000001", id="value -1"),
        pytest.param(f"{HEADER}ISIC_0000001,yes,0\n", "yes", id="text"),
        pytest.param(f"{HEADER}ISIC_0000001,,0\n", "empty cell for ISIC_0000001", id="empty cell"),
        pytest.param(f"{HEADER}ISIC_0000001,0\n", "ISIC_0000001", id="short row"),
        pytest.param(f"{HEADER}ISIC_0000001,0,0\nISIC_0000009,0,0\n", "ISIC_0000009", id="id without image"),
        pytest.param(f"{HEADER}ISIC_0000001,0,0\nISIC_0000009,0,0\n,0,0\n", "", id="empty id"),
        pytest.param(HEADER, "ISIC_0000001", id="image without row"),
        pytest.param("", "", id="empty file"),
        pytest.param(bytes(range(256)) * 20, "", id="binary"),
        pytest.param(b"\0" * 500, "", id="zeros"),
        pytest.param(HEADER.encode("utf-16"), "", id="utf-16"),
    ],
)
def test_bad_label_table_is_refused_by_name(tmp_path, content, named):
    write_labels(tmp_path, content)
    with pytest.raises(InputError) as error:
        OfficialFolders(tmp_path).labels("training", IDS[:1])
    assert str(error.value).startswith(str(tmp_path / TABLE))
    assert named in str(error.value).removeprefix(str(tmp_path / TABLE))
