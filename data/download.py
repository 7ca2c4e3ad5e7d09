"""Download the official ISIC 2017 archives and tables into the layout of `data.official`.

    python -m data.download [--data-dir data/isic2017] [--splits training validation test]

The training images are 5.8 GB and the test images 5.4 GB. While an archive is unpacked, it needs about twice its size.
Existing files are kept and not downloaded again. An archive that you put there by hand is unpacked, and then removed
unless --keep-archives is given. After an interruption, the same command continues the download. The data set is in the
public domain (CC-0); source: https://challenge.isic-archive.com/data/#2017.
"""

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pooch
import requests
import tyro

from data.official import image_folder, label_rows, label_table, mask_folder
from utils.errors import InputError, one_sentence_errors
from utils.files import lock
from utils.progress import progress

URL = "https://isic-challenge-data.s3.amazonaws.com/2017/"
MD5 = {
    "ISIC-2017_Training_Data.zip": "a14a7e622c67a358797ae59abb8a0b0c",
    "ISIC-2017_Training_Part1_GroundTruth.zip": "77fdbeb6fbec4139937224416b250f4c",
    "ISIC-2017_Validation_Data.zip": "8d6419d942112f709894c0d82f6c9038",
    "ISIC-2017_Validation_Part1_GroundTruth.zip": "64d3e68fa2deeb8a5e89aa8dec2efd44",
    "ISIC-2017_Test_v2_Data.zip": "5f6a0b5e1f2972bd1f5ea02680489f09",
    "ISIC-2017_Test_v2_Part1_GroundTruth.zip": "b1742de6bd257faca3b2b21a4aa3b781",
    # The server names no checksum of the tables; `data.official.label_rows` checks what they hold.
    "ISIC-2017_Training_Part3_GroundTruth.csv": None,
    "ISIC-2017_Validation_Part3_GroundTruth.csv": None,
    "ISIC-2017_Test_v2_Part3_GroundTruth.csv": None,
}

TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Settings:
    data_dir: Path = Path("data/isic2017")
    """Folder that receives the official layout."""
    splits: tuple[Literal["training", "validation", "test"], ...] = ("training", "validation", "test")
    """Splits to download."""
    url: str = URL
    """Address of the folder that holds the files; change it to use a mirror."""
    keep_archives: bool = False
    """Keep the archives once they are unpacked."""


def download(data_dir, splits, url=URL, keep_archives=False, checksums=MD5):
    """Download and unpack the missing files of some splits.

    Args:
        data_dir: folder that receives the official layout.
        splits: any of "training", "validation" and "test".
        url: address of the folder that holds the files.
        keep_archives: keep the archives once they are unpacked.
        checksums: dictionary from file name to MD5, or None for a file that cannot be checked.

    Raises:
        InputError: if a file cannot be downloaded or written, or has a wrong checksum.
    """
    try:
        for split in splits:
            for target in (image_folder(data_dir, split), mask_folder(data_dir, split), label_table(data_dir, split)):
                if target.exists():
                    print(f"{target} is already there")
                    continue
                file = target if target.suffix == ".csv" else target.with_name(f"{target.name}.zip")
                fetch(f"{url.rstrip('/')}/{file.name}", file, checksums[file.name])
                if file != target:
                    unpack(file, target)
                    if not keep_archives:
                        file.unlink()
    except OSError as error:
        raise InputError(
            f"{error.filename or data_dir} cannot be written ({error.strerror or error}): make room or choose another "
            f"--data-dir, and run the command again"
        ) from None


def fetch(url, path, checksum):
    """Download a file unless it exists. The file gets its name only when it is complete and checked.

    `pooch.retrieve` does the same, but it deletes an unfinished download, which may have taken hours.

    Args:
        url: address of the file.
        path: where to write it. An existing file with another checksum is replaced.
        checksum: its MD5; None to skip the check.

    Raises:
        InputError: if the server cannot be reached or refuses, the connection breaks, or the checksum is wrong.
        OSError: if the file cannot be written.
    """
    mismatch = ""
    if path.exists():
        if (md5 := pooch.file_hash(path, "md5")) == checksum:
            return
        mismatch = f"{path} has the MD5 checksum {md5}, the official archive {checksum}"
        print(f"{mismatch}: it will be replaced")
    print(f"downloading {url}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if checksum is None:
        part.unlink(missing_ok=True)  # without a checksum, parts of two versions of the file might be joined
    try:
        continue_download(url, part)
    except OSError as error:  # also what requests raises
        if error.errno is not None and not isinstance(error, requests.RequestException):
            raise
        answer = getattr(error, "response", None)  # None if the connection failed
        reason = type(error).__name__ if answer is None else f"{answer.status_code} {answer.reason}"
        reason = reason if isinstance(error, requests.RequestException) else error
        raise InputError(
            f"{url} could not be downloaded ({reason}): check the connection and --url, and run the command again, "
            f"which goes on where this download stopped"
            + (f"; {mismatch}: if it is complete anyway, unpack it into {path.with_suffix('')}" if mismatch else "")
        ) from None
    if checksum is not None and pooch.file_hash(part, "md5") != checksum:
        part.unlink()
        raise InputError(f"{url} came with a wrong MD5 checksum and was deleted: run the command again or check --url")
    if path.suffix == ".csv":
        try:
            label_rows(part)
        except InputError as error:
            raise InputError(f"{url} is no table of labels: check the connection and --url ({error})") from None
    os.replace(part, path)


def continue_download(url, part):
    """Download the missing bytes of a partial file, which need not exist, and show a progress bar.

    Raises:
        requests.RequestException: if the download fails. The bytes that were downloaded are kept.
        OSError: if the file cannot be written.
    """
    # pooch sets the bar's real total once the server has answered.
    with open(part, "ab") as file, progress(total=1, desc=part.stem, unit="B", unit_scale=True) as bar:

        def start_over_if_whole(response, **_):
            if response.status_code == 200 and file.tell():  # the server ignores Range and sends everything
                if int(response.headers.get("Content-Length", 0)) < file.tell():  # for example a page to log in
                    raise requests.HTTPError(response=response)
                file.truncate(0)

        transfer = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=2**16,
            timeout=TIMEOUT,
            # A range of a compressed transfer would count the compressed bytes.
            headers={"Range": f"bytes={file.tell()}-", "Accept-Encoding": "identity"},
            hooks={"response": start_over_if_whole},
        )
        try:
            transfer(url, file, None)
        except requests.HTTPError as error:
            if error.response.status_code != 416:  # 416: no bytes are left; the checksum verifies this
                raise


def unpack(archive, folder):
    """Unpack an archive. The folder gets its name only when it is complete.

    Args:
        archive: zip file. Folders in it are ignored, because the official layout is flat, and because then no file can
            be written to another folder.
        folder: folder for its files.

    Raises:
        OSError: if the disk is full or the folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        temporary.mkdir()
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            for member in progress(members, f"unpacking {archive.name}", unit="file"):
                member.filename = PurePosixPath(member.filename).name
                content.extract(member, temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main():
    settings = tyro.cli(Settings, prog="python -m data.download", description=__doc__)
    with one_sentence_errors():
        held = lock(Path(settings.data_dir) / ".download.lock")
        if held is None:
            raise InputError(f"another process is downloading into {settings.data_dir}: wait for its end")
        with held:
            download(**vars(settings))


if __name__ == "__main__":
    main()
