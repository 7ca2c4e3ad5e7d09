"""report.py on a finished run: what the page holds, and that a browser shows all of it."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from html import unescape
from html.parser import HTMLParser

import pytest

from config import Config
from data.images import image_size, read_square, write_image
from data.official import OfficialFolders, label_table
from pipeline.report_inputs import image_views
from tests.conftest import BACKBONES
from tests.test_stages import fails

# The page in a frame of a given width, as headless Chromium makes no window narrower than 500 pixels.
FRAME = """<!doctype html><title>waiting</title><iframe src="page.html" width="{width}" height="844"></iframe>
<script>addEventListener("message", (event) => {{ document.title = event.data }})</script>"""
PROBE = """<script>addEventListener("load", () => {
  const page = document.documentElement, images = [...document.images];
  const shown = images.filter((image) => image.naturalWidth > 0 && image.clientWidth > 0).length;
  parent.postMessage([innerWidth, images.length, shown, page.scrollWidth - page.clientWidth].join(" "), "*");
})</script></body>"""

CLICKS = """<script>addEventListener("load", async () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const scores = () => all("table.images tbody tr").map((row) => row.cells[3].textContent);
  const visible = () => all("table.images tbody tr").filter((row) => row.offsetParent);
  const shown = () => visible().map((row) => row.cells[0].textContent);
  const type = (id, value) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event("input"));
  };
  const seen = {csv: await (await fetch(all("a[download]")[0].href)).text(), one: shown().slice(0, 1)};
  const head = all("table.images thead button")[3];
  head.click(); seen.descending = scores();
  head.click(); seen.ascending = scores();
  type("by-answer", "wrong"); seen.wrong = shown().length;
  type("by-answer", ""); type("by-id", seen.one[0].toLowerCase()); seen.one = shown();
  all("button.large")[0].click(); seen.dialog = all("dialog")[0].open;
  document.title = JSON.stringify(seen);
})</script></body>"""


class Page(HTMLParser):
    """What a page shows and where it points."""

    def __init__(self, html):
        super().__init__()
        self.text, self.links, self.sources, self.headings, self.ids = "", [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        else:
            self.sources += [attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "img":
            assert attributes["alt"]
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run_dir(stage, finished, tmp_path_factory):
    """A finished run folder with its report."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(finished, folder, copy_function=os.link, ignore=shutil.ignore_patterns("*.lock"))
    result = stage("report.py", folder)
    assert result.returncode == 0, result.stderr
    assert "results/report.html" in result.stdout
    return folder


def test_the_page_needs_nothing_else_and_holds_every_method_and_setting(run_dir):
    html = (run_dir / "results" / "report.html").read_text()
    page = Page(html)
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "http" not in "".join(re.findall("<script>(.*?)</script>", html, re.DOTALL))
    assert "url(" not in html
    assert "@import" not in html
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert all(below - above <= 1 for above, below in zip(page.headings, page.headings[1:], strict=False))
    measured = json.loads((run_dir / "results" / "metrics.json").read_text())["test"]
    names = [name for name in measured["methods"] if not name.startswith("best single")]
    assert {*BACKBONES, "mean", "vote", "prior"} <= set(names)
    table = html.rsplit("Diagnosis on the test split, 8 images", 1)[1].split("</table>")[0]
    rows = dict(re.findall(r'<th scope="row">(.+?)<(.*?)</tr>', table, re.DOTALL))
    assert list(rows) == names
    for name in names:
        assert f"<td>{measured['methods'][name]['accuracy']:.3f}" in rows[name]
    assert f"<dd>{measured['methods']['vote']['mean.auc']:.3f}" in html.split("<nav")[0]
    for setting in set(asdict(Config())) - {"backbone_name", "config", "overwrite"}:
        assert setting in page.text
    assert html.count('alt="Grad-CAM of ') == html.count('<article class="case">') * len(BACKBONES) > 0
    images = html.split('class="images"')[1].split("</table>")[0]
    assert images.count('<tr><th scope="row">ISIC_') == 8
    opened, folded = html.split('id="settings"')[1].split("<details>")
    assert "<code>unet_epochs</code>" in opened
    assert "<code>head_units</code>" in folded


CHROMIUM = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium here")


@needs_chromium
@pytest.mark.parametrize("width", [1400, 390])
def test_a_browser_shows_every_picture_and_nothing_overflows(run_dir, tmp_path, width):
    html = (run_dir / "results" / "report.html").read_text()
    (tmp_path / "page.html").write_text(html.replace("</body>", PROBE))
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    command = [*CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900"]
    result = subprocess.run([*command, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=120)
    title = result.stdout.split("<title>")[1].split("</title>")[0]
    seen, images, shown, overflow = map(int, title.split())
    assert seen == width
    assert images - 1 == html.count("<img ") > 10  # and that of the closed dialog
    assert shown == images - 1
    assert overflow <= 0


@needs_chromium
def test_pictures_open_large_and_the_table_sorts_and_filters(run_dir, tmp_path):
    html = (run_dir / "results" / "report.html").read_text()
    (tmp_path / "page.html").write_text(html.replace("</body>", CLICKS))
    command = [*CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = json.loads(unescape(result.stdout.split("<title>")[1].split("</title>")[0]))
    rows = [line.split(",") for line in seen["csv"].splitlines()[1:]]
    scores = sorted((round(float(row[3]), 3) for row in rows), reverse=True)
    assert [float(score) for score in seen["descending"]] == scores
    assert [float(score) for score in seen["ascending"]] == scores[::-1]
    assert seen["wrong"] == sum(row[1] != row[2] for row in rows)
    assert seen["one"] == [rows[0][0]]
    assert seen["dialog"] is True


def linked(run_dir, folder):
    """A copy of a run folder by links; what is to be changed there has to be removed first."""
    return shutil.copytree(run_dir, folder, copy_function=os.link, ignore=shutil.ignore_patterns("*.lock"))


def test_a_run_without_test_labels_or_masks_is_reported_and_texts_are_escaped(stage, run_dir, tiny_sample, tmp_path):
    data_dir = shutil.copytree(tiny_sample, tmp_path / "<script>")
    label_table(data_dir, "test").unlink()
    folder = linked(run_dir, tmp_path / "run")
    (folder / "results" / "segmentation.json").unlink()
    for name in ("mean", "vote"):
        (folder / "predictions" / f"{name}_test.csv").unlink()
    for script in ("vote.py", "report.py"):
        result = stage(script, folder, data_dir=data_dir)
        assert result.returncode == 0, result.stderr
    assert (folder / "predictions/vote_test.csv").exists()
    assert list(json.loads((folder / "results/metrics.json").read_text())) == ["training", "validation"]
    html = (folder / "results" / "report.html").read_text()
    for text in ("Diagnosis on the validation split", "no labels", "Not measured", "&lt;script&gt;</td>"):
        assert text in html
    assert "chosen on these same images" in html
    assert "The pictures are synthetic" in html
    assert html.count("<script") == 1  # our own


def test_a_method_has_no_threshold_and_no_curve_on_images_that_it_was_fitted_on(stage, run_dir, tiny_sample, tmp_path):
    data_dir = shutil.copytree(tiny_sample, tmp_path / "data")
    label_table(data_dir, "test").unlink()  # so the page is about validation
    folder = linked(run_dir, tmp_path / "run")
    said = ""
    for script in ("vote.py", "report.py"):
        result = stage(script, folder, "--vote-fit-split", "validation", data_dir=data_dir)
        assert result.returncode == 0, result.stderr
        said += result.stdout
    assert "fitted vote on the validation predictions" in said
    assert "fitted vote_on_training on the training predictions" in said
    assert not list(folder.rglob("vote_on_validation*")), "what is no longer made must not stay"
    html = (folder / "results" / "report.html").read_text()
    assert html.count("The run keeps no operating points of the vote.") == 2
    assert "chosen on the validation split" not in html
    assert "it was fitted on these same images" in html
    assert "Methods that were fitted on these images have no curve." in html
    (described,) = re.findall('alt="(ROC curve of melanoma[^"]*)"', html)
    assert "for the mean of the networks" in described
    assert "for the vote" not in described


@pytest.mark.parametrize(
    "lost", ["image", "labels", "settings", "metrics", "history", "predictions", "vote", "other labels"]
)
def test_a_report_that_cannot_be_made_is_one_sentence_and_keeps_the_old_one(
    stage, run_dir, tiny_sample, tmp_path, lost
):
    data_dir, folder = shutil.copytree(tiny_sample, tmp_path / "data"), linked(run_dir, tmp_path / "run")
    page = (folder / "results" / "report.html").read_bytes()
    path, content, parts = {
        "image": (OfficialFolders(data_dir).images("test")["ISIC_0000024"], None, ["ISIC_0000024", "put it back"]),
        "labels": (label_table(data_dir, "test"), None, ["Test_v2_Part3", "missing"]),
        "settings": (folder / "crops/test/config.json", None, ["crops/test/config.json is missing", "resize.py"]),
        "metrics": (folder / "results/metrics.json", "{", ["results/metrics.json is damaged", "vote.py"]),
        "history": (
            folder / "unet/history.csv",
            "",
            ["unet/history.csv was changed after", "seg_train.py"],
        ),
        "predictions": (
            folder / "predictions/resnet50_test.csv",
            "image_id,melanoma,seborrheic_keratosis,nevus\n",
            ["predictions/resnet50_test.csv", "run `python cls_predict.py"],
        ),
        "other labels": (
            label_table(data_dir, "test"),
            label_table(data_dir, "test").read_text().replace("ISIC_0000024,0.0,1.0", "ISIC_0000024,1.0,0.0"),
            ["metrics.json was made with other labels", "run `python vote.py"],
        ),
        "vote": (folder / "vote/vote.keras", None, ["vote/vote.keras is missing", "vote.py"]),
    }[lost]
    path.unlink()  # the original may have the same inode
    if content is not None:
        path.write_text(content)
    assert fails(stage("report.py", folder, data_dir=data_dir), *parts)
    assert (folder / "results" / "report.html").read_bytes() == page


def test_a_copy_is_reported_as_it_was(stage, run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "run", copy_function=shutil.copyfile)  # new times, same bytes
    assert "report: nothing changed" in stage("report.py", folder).stdout


def test_a_run_without_figures_names_what_makes_them(stage, tmp_path):
    (tmp_path / "demo" / "results").mkdir(parents=True)
    (tmp_path / "demo" / "results" / "metrics.json").write_text("{}")
    assert fails(stage("report.py", tmp_path / "run"), f"finished runs are {tmp_path / 'demo'}", "vote.py")


def test_an_image_whose_mask_was_left_out_is_shown_as_it_was_cropped(tiny_sample, tmp_path):
    data, run_dir = shutil.copytree(tiny_sample, tmp_path / "data"), tmp_path / "run"
    ids = list(OfficialFolders(data).images("test"))
    for image_id, path in OfficialFolders(data).images("test").items():
        write_image(run_dir / "crops" / "test" / f"{image_id}.png", read_square(path, 72))
    config = replace(Config(), data_dir=data, run_dir=run_dir, masks="ground_truth", image_size=72)

    def boxes():
        views = image_views(config, "test", ids, crop_settings=config, shorter_side=90)
        return {image_id: (view.mask is None, view.box) for image_id, view in zip(ids, views, strict=True)}

    before = boxes()
    assert not any(without for without, _ in before.values())
    missing, damaged, *others = ids
    OfficialFolders(data).masks("test", [missing])[missing].unlink()
    OfficialFolders(data).masks("test", [damaged])[damaged].write_bytes(b"")
    sizes = {image_id: image_size(path) for image_id, path in OfficialFolders(data).images("test").items()}
    whole = {i: (True, (0, sizes[i][0], 0, sizes[i][1])) for i in (missing, damaged)}
    assert boxes() == whole | {image_id: before[image_id] for image_id in others}
