"""The page to try networks: what it answers, and that a real browser shows it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import app
from data.official import OfficialFolders
from pipeline.finished_run import DRAWN, load_run
from tests.conftest import REPOSITORY
from utils.errors import InputError

WAIT = 120  # seconds for an answer on a busy machine


@pytest.fixture(scope="module")
def opened(finished):
    return load_run(finished)


@pytest.fixture(scope="module")
def image(tiny_sample):
    return OfficialFolders(tiny_sample).images("test")["ISIC_0000024"]


def test_an_answer_follows_the_chosen_rule(opened, image):
    by_argmax, by_point = (app.answer(opened, str(image), rule) for rule in (app.ARGMAX, "95% sensitivity"))
    for said, probabilities, shown, crop, maps in (by_argmax, by_point):
        assert said.startswith("## melanoma: ")
        assert DRAWN in said
        assert sum(probabilities.values()) == pytest.approx(1)
        assert shown.ndim == crop.ndim == 3
        assert [name for _, name in maps] == list(opened.config.backbones)
    assert "95% sensitivity" in by_point[0]
    assert "89% sensitivity" in by_argmax[0], "the operating point stands beside the largest probability"
    assert app.answer(opened, None, app.ARGMAX) == ("", None, None, None, None)


def test_what_is_no_image_or_too_large_is_one_sentence(opened, tmp_path):
    text, large = tmp_path / "text.jpg", tmp_path / "large.jpg"
    text.write_text("text")
    with open(large, "wb") as file:
        file.truncate(51_000_000)
    for path, part in ((text, "text.jpg cannot be read as an image"), (large, "large.jpg is larger than 50 MB")):
        said, *nothing = app.answer(opened, str(path), app.ARGMAX)
        assert part in said
        assert str(tmp_path) not in said
        assert nothing == [None] * 4


def test_without_gradio_the_page_names_what_to_install(monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -r requirements-app\.txt"):
        app.main(None)


@contextmanager
def served(run_dir, folder):
    """Run app.py, with uploads in a folder: gives the address of the page and the process."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    command = list(map(str, [sys.executable, "app.py", "--run-dir", run_dir, "--port", port, "--no-browser"]))
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder)}
    with open(log, "w", encoding="utf-8") as file:
        server = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + WAIT
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def running(finished, tmp_path_factory):
    """The page that app.py serves: its address, its process, and its folder of uploads."""
    folder = tmp_path_factory.mktemp("app")
    with served(finished, folder) as (page, server):
        yield page, server, folder


@pytest.fixture
def address(running):
    """Where app.py serves the page."""
    return running[0]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="not Linux")
def test_the_page_is_served_to_this_machine_alone(address):
    port = f":{int(address.rpartition(':')[2]):04X} "
    lines = [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]
    listening = {line.split()[1] for line in lines[1:] if port in f"{line.split()[1]} " and line.split()[3] == "0A"}
    assert listening == {f"0100007F{port.strip()}"}


@pytest.fixture
def browser():
    """Chromium with a driver."""
    selenium = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium, or no driver for it")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(option)
    page = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield page
    page.quit()


def test_a_browser_shows_the_answer_and_always_the_disclaimer(browser, address, image, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    def drop(path):
        browser.get(address)
        wait.until(lambda page: page.find_elements("css selector", "#file input[type=file]"))
        browser.find_element("css selector", "#file input[type=file]").send_keys(os.fspath(path))

    def text(of):
        return browser.find_element("css selector", of).text

    wait = WebDriverWait(browser, WAIT, ignored_exceptions=(Exception,))
    drop(image)
    wait.until(lambda page: "melanoma" in text("#said") and "decision" in text("#said"))
    for of, count in (("#image", 1), ("#crop", 1), ("#maps", 2)):
        wait.until(lambda page, of=of, count=count: len(page.find_elements("css selector", f"{of} img")) >= count)
    assert "seborrheic_keratosis" in text("#bars").replace(" ", "_")
    assert DRAWN in text("#said")
    for place in ("0", "document.body.scrollHeight"):
        browser.execute_script(f"window.scrollTo(0, {place})")
        visible = browser.execute_script(
            "const box = document.querySelector('#warning').getBoundingClientRect();"
            "return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight + 1"
        )
        assert visible
    assert "no diagnosis" in text("#warning")

    (tmp_path / "notes.txt").write_text("no image")
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(51_000_000)
    for name, part in (("notes.txt", "cannot be read as an image"), ("large.jpg", "larger than 50 MB")):
        drop(tmp_path / name)
        wait.until(lambda page, part=part: part in text("#said"))


def test_ctrl_c_removes_the_uploads(running, image):  # the last test of the page
    page, server, folder = running
    client = pytest.importorskip("httpx").Client(timeout=WAIT, trust_env=False)  # without a proxy
    reply = client.post(f"{page}/gradio_api/upload", files={"files": ("lesion.jpg", image.read_bytes())})
    (upload,) = map(Path, reply.json())
    assert upload.is_relative_to(folder)
    assert upload.read_bytes() == image.read_bytes()
    with client.stream("GET", f"{page}/gradio_api/heartbeat/x"):  # as of a page in a browser
        server.send_signal(signal.SIGINT)
        server.wait(WAIT)
    assert not upload.exists()
