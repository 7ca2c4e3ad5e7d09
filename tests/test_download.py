"""The downloader against a server on this machine that can break off, ignore Range, lie and refuse."""

import errno
import hashlib
import io
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data import download as module
from data.download import MD5, download
from data.official import OFFICIAL_NAME, OfficialFolders, image_folder, label_table, mask_folder
from utils.errors import InputError

IMAGES = "ISIC-2017_Training_Data"
MASKS = "ISIC-2017_Training_Part1_GroundTruth"
TABLE = "ISIC-2017_Training_Part3_GroundTruth.csv"
IMAGE_BYTES = random.Random(0).randbytes(500_000)


def archive(members):
    """Zip file of some members, as bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, member in members.items():
            file.writestr(name, member)
    return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Sends `server.files`; notes each request as (name, Range)."""

    def do_GET(self):
        server, name, asked = self.server, self.path.removeprefix("/"), self.headers["Range"]
        server.requests.append((name, asked))
        content = server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        if server.failure == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        self.send_response(206 if asked and server.ranges else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + server.cut] if server.cut else content[start:])
        if server.failure == "silence":
            server.woken.wait(60)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server with the files of the training split."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {
        f"{IMAGES}.zip": archive({f"{IMAGES}/": "", f"{IMAGES}/ISIC_0000000.jpg": IMAGE_BYTES}),
        f"{MASKS}.zip": archive({"ISIC_0000000_segmentation.png": b"mask"}),  # without the folder
        TABLE: b"image_id,melanoma,seborrheic_keratosis\nISIC_0000000,1.0,0.0\n",
    }
    server.requests, server.ranges, server.cut, server.failure = [], True, None, None
    server.woken = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    server.checksums = {
        name: None if name == TABLE else hashlib.md5(content).hexdigest() for name, content in server.files.items()
    }
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.woken.set()
    server.shutdown()
    thread.join()
    server.server_close()


def download_training(server, data_dir, **options):
    download(data_dir, ["training"], **{"url": server.url, "checksums": server.checksums, **options})


def break_off(server, data_dir):
    """Let the connection break in the first archive; gives the partial file."""
    server.cut = 300_000
    with pytest.raises(InputError, match=r"ISIC-2017_Training_Data\.zip could not be downloaded .* run the command"):
        download_training(server, data_dir)
    server.cut = None
    server.requests.clear()
    assert not (data_dir / IMAGES).exists()
    return data_dir / f"{IMAGES}.zip.part"


def test_layout_stands(server, tmp_path):
    download_training(server, tmp_path)
    images = OfficialFolders(tmp_path).images("training")
    assert images["ISIC_0000000"].read_bytes() == IMAGE_BYTES
    assert OfficialFolders(tmp_path).masks("training", images)["ISIC_0000000"].read_bytes() == b"mask"
    assert OfficialFolders(tmp_path).labels("training", list(images)).tolist() == [[1, 0, 0]]
    assert {path.name for path in tmp_path.iterdir()} == {IMAGES, MASKS, TABLE}


def test_second_run_makes_no_request(server, tmp_path, capsys):
    download_training(server, tmp_path)
    server.requests.clear()
    capsys.readouterr()
    download_training(server, tmp_path)
    assert server.requests == []
    assert capsys.readouterr().out.count("is already there") == 3


def test_kept_archive_is_unpacked_without_network(server, tmp_path):
    download_training(server, tmp_path, keep_archives=True)
    (tmp_path / IMAGES / "ISIC_0000000.jpg").unlink()
    (tmp_path / IMAGES).rmdir()
    server.requests.clear()
    download_training(server, tmp_path)
    assert server.requests == []
    assert OfficialFolders(tmp_path).images("training")["ISIC_0000000"].read_bytes() == IMAGE_BYTES
    assert not (tmp_path / f"{IMAGES}.zip").exists()
    assert (tmp_path / f"{MASKS}.zip").exists()  # its folder stood: nothing to do


def test_goes_on_after_a_broken_connection(server, tmp_path):
    part = break_off(server, tmp_path)
    size = part.stat().st_size
    assert 200_000 < size <= 300_000
    download_training(server, tmp_path)
    assert server.requests[0] == (f"{IMAGES}.zip", f"bytes={size}-")
    assert OfficialFolders(tmp_path).images("training")["ISIC_0000000"].read_bytes() == IMAGE_BYTES
    assert not part.exists()


@pytest.mark.parametrize("failure", ["reset", "silence"])
def test_a_connection_that_is_reset_or_falls_silent_is_one_sentence_and_goes_on(server, tmp_path, monkeypatch, failure):
    server.failure = failure
    with monkeypatch.context() as patch:
        patch.setattr(module, "TIMEOUT", 0.5)
        part = break_off(server, tmp_path)
    server.failure = None
    assert part.exists()
    download_training(server, tmp_path)
    assert OfficialFolders(tmp_path).images("training")["ISIC_0000000"].read_bytes() == IMAGE_BYTES


def test_server_that_ignores_range(server, tmp_path):
    server.ranges = False
    assert break_off(server, tmp_path).stat().st_size > 200_000
    download_training(server, tmp_path)
    assert server.requests[0][1] != "bytes=0-"
    assert OfficialFolders(tmp_path).images("training")["ISIC_0000000"].read_bytes() == IMAGE_BYTES


def test_a_page_in_place_of_a_file_destroys_nothing_and_is_no_table(server, tmp_path):
    part, page = break_off(server, tmp_path), b"<html>log in</html>"
    size, right, server.ranges = part.stat().st_size, server.files.copy(), False
    server.files = dict.fromkeys(right, page)
    with pytest.raises(InputError, match=r"Training_Data.zip could not be downloaded \(200 OK\)"):
        download_training(server, tmp_path)
    assert part.stat().st_size == size
    server.files = {**right, TABLE: page}
    with pytest.raises(InputError, match=rf"{TABLE} is no table of labels: check the connection"):
        download_training(server, tmp_path)
    assert not (tmp_path / TABLE).exists()


def test_a_missing_certificate_is_not_called_a_full_disk(server, tmp_path, monkeypatch):
    def get(*_, **__):
        raise OSError("Could not find a suitable TLS CA certificate bundle")

    monkeypatch.setattr("requests.get", get)
    with pytest.raises(InputError, match=r"could not be downloaded \(Could not find a suitable TLS CA cert"):
        download_training(server, tmp_path)


def test_whole_partial_file_is_not_sent_again(server, tmp_path):
    content = server.files[f"{IMAGES}.zip"]
    (tmp_path / f"{IMAGES}.zip.part").write_bytes(content)  # killed while the checksum was computed
    download_training(server, tmp_path)
    assert server.requests[0] == (f"{IMAGES}.zip", f"bytes={len(content)}-")
    assert OfficialFolders(tmp_path).images("training")["ISIC_0000000"].read_bytes() == IMAGE_BYTES


def test_broken_table_starts_anew(server, tmp_path):
    (tmp_path / f"{TABLE}.part").write_bytes(b"of another table")
    download_training(server, tmp_path)
    assert (tmp_path / TABLE).read_bytes() == server.files[TABLE]


def test_wrong_checksum(server, tmp_path):
    right = server.files[f"{IMAGES}.zip"]
    server.files[f"{IMAGES}.zip"] = right[:-1] + b"?"
    with pytest.raises(InputError, match="wrong MD5 checksum and was deleted: run the command again"):
        download_training(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.files[f"{IMAGES}.zip"] = right
    download_training(server, tmp_path)
    assert OfficialFolders(tmp_path).images("training")


def test_wrong_archive_put_there_by_hand_is_replaced(server, tmp_path):
    (tmp_path / f"{IMAGES}.zip").write_bytes(b"half an archive")
    download_training(server, tmp_path)
    assert OfficialFolders(tmp_path).images("training")


def test_without_a_connection_an_archive_of_another_checksum_is_named_and_stays(server, tmp_path):
    archive_file = tmp_path / f"{IMAGES}.zip"
    archive_file.write_bytes(b"packed anew")
    del server.files[archive_file.name]
    md5 = hashlib.md5(b"packed anew").hexdigest()
    with pytest.raises(InputError, match=rf"{IMAGES}\.zip has the MD5 checksum {md5}, .* unpack it into .*{IMAGES}$"):
        download_training(server, tmp_path)
    assert archive_file.read_bytes() == b"packed anew"


def test_broken_unpacking_leaves_no_folder(server, tmp_path, monkeypatch):
    def fill_the_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extract", fill_the_disk)
        with pytest.raises(InputError, match=r"No space left on device.*make room"):
            download_training(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{IMAGES}.zip"]
    (tmp_path / f".{IMAGES}.unpacking").mkdir()  # of a run that was killed
    (tmp_path / f".{IMAGES}.unpacking" / "ISIC_0000009.jpg").touch()
    download_training(server, tmp_path)
    assert list(OfficialFolders(tmp_path).images("training")) == ["ISIC_0000000"]


def test_no_member_leaves_the_folder(tmp_path):
    path = tmp_path / "in" / "evil.zip"
    path.parent.mkdir()
    outside = tmp_path / "absolute.jpg"
    path.write_bytes(archive({"../../up.jpg": b"", str(outside): b"", "a/../../side.jpg": b"", "ISIC_0.jpg": b""}))
    module.unpack(path, tmp_path / "in" / "folder")
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {"in/evil.zip", *(f"in/folder/{name}.jpg" for name in ("up", "absolute", "side", "ISIC_0"))}


def test_unwritable_folder(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        download_training(server, tmp_path / "file")


@pytest.mark.parametrize("url", ["no-address", "http://[::1", "http://", "file:///tmp/"])
def test_address_that_is_none(url, server, tmp_path):
    with pytest.raises(InputError, match="could not be downloaded"):
        download_training(server, tmp_path, url=url)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "data.download", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_command_says_what_is_missing(server, tmp_path):
    done = run("--data-dir", str(tmp_path), "--splits", "validation", "--url", server.url)
    assert done.returncode == 2
    file = f"{server.url}ISIC-2017_Validation_Data.zip"
    assert done.stderr.splitlines()[-1].startswith(
        f"download.py: error: {file} could not be downloaded (404 Not Found): "
    )
    assert "Traceback" not in done.stderr


def test_command_without_connection(server, tmp_path):
    with socket.socket() as free:  # bound but not listening: nothing else can take the port meanwhile
        free.bind(("127.0.0.1", 0))
        done = run("--data-dir", str(tmp_path), "--url", f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert done.returncode == 2
    assert "could not be downloaded (ConnectionError): check the connection" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_command_with_everything_there(tmp_path):
    for split in OFFICIAL_NAME:
        image_folder(tmp_path, split).mkdir()
        mask_folder(tmp_path, split).mkdir()
        label_table(tmp_path, split).touch()
    done = run("--data-dir", str(tmp_path), "--url", "http://127.0.0.1:9/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is already there") == 9


def test_checksums_name_the_official_files():
    archives = {f"{folder('.', split).name}.zip" for split in OFFICIAL_NAME for folder in (image_folder, mask_folder)}
    assert {name for name in MD5 if name.endswith(".zip")} == archives
    assert all(re.fullmatch("[0-9a-f]{32}", MD5[name]) for name in archives)
    assert len({MD5[name] for name in archives}) == 6
    assert {name for name in MD5 if name not in archives} == {label_table(".", split).name for split in OFFICIAL_NAME}
