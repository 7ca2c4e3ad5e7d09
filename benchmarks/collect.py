"""Copy the small files of a finished run to a folder that can be committed.

    python benchmarks/collect.py --run-dir runs/fine_tuned --results results/fine_tuned --log runs/fine_tuned.log

Copies settings, losses by epoch, predictions, metrics, tables and pictures, without files over 1 MB. Writes masks.zip
(the masks of validation and test) and machine_and_times.txt (the machine, the versions of the libraries, and from the
log the seconds of each step). Run folders beside the run whose names begin with its name, such as
runs/fine_tuned_seed_1, are copied to subfolders (`seed_1`), without masks and files that equal those of the run.
"""

import filecmp
import os
import platform
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

import tyro

PATTERNS = (
    *("unet/history.csv", "unet/config.json", "masks/test/config.json", "crops/test/config.json"),
    *("backbones/*/history.csv", "backbones/*/config.json", "backbones/*/fold_*/history.csv", "folds.csv"),
    *("ablations/*/backbones/*/history.csv", "ablations/*/backbones/*/config.json", "ablations/*/predictions/*.csv"),
    *("vote/*.csv", "vote/*.json", "predictions/*.csv", "predictions/*.json", "config.json"),
    *("results/*.json", "results/*.md", "results/*.png", "results/evaluation_*/evaluation.md"),
)
LIBRARIES = ("keras", "tensorflow", "jax", "torch", "numpy", "opencv-python-headless", "scikit-learn")
SPLITS = ("training", "validation", "test")
LARGEST = 2**20  # bytes


@dataclass(frozen=True)
class Arguments:
    run_dir: Path
    """The finished run."""
    results: Path
    """Folder to copy to; it is emptied first."""
    splits: tuple[Literal["training", "validation", "test"], ...] = SPLITS
    """Splits whose predictions and masks are copied."""
    log: Path | None = None
    """Output of the command that made the run."""


def machine():
    """Two lines of text: processor, cores, system and GPUs; versions of Python and the libraries."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    system = f"{platform.system()} {platform.machine()}"
    parts = [*(names[:1] or [platform.processor()]), f"{os.cpu_count()} cores", system]
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        parts += subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    installed = {package.name: package.version for package in distributions()}
    versions = [f"{name} {installed[name]}" for name in LIBRARIES if name in installed]
    return [", ".join(parts), ", ".join([f"Python {platform.python_version()}", *versions])]


def copy(run, results, splits, known=None):
    """Copy the small files of a run folder, except files of other splits and files that are the same in `known`."""
    others = tuple(f"_{split}" for split in SPLITS if split not in splits)
    for path in sorted(path for pattern in PATTERNS for path in run.glob(pattern)):
        place = path.relative_to(run)
        unfinished = path.name.startswith(".")
        if unfinished or path.stem.endswith(others) or path.stat().st_size > LARGEST:
            continue
        if known and (known / place).exists() and filecmp.cmp(path, known / place, shallow=False):
            continue
        (results / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, results / place)


def main(arguments):
    run, results = arguments.run_dir, arguments.results
    if not (run / "config.json").is_file():
        raise SystemExit(f"{run} is no run folder: name one")
    if run.resolve().is_relative_to(results.resolve()):
        raise SystemExit(f"--results {results} holds the run: name another folder")
    shutil.rmtree(results, ignore_errors=True)
    copy(run, results, arguments.splits)
    for settings in sorted(run.parent.glob(f"{run.name}_*/config.json")):
        beside = settings.parent
        copy(beside, results / beside.name.removeprefix(f"{run.name}_"), arguments.splits, known=results)
    with zipfile.ZipFile(results / "masks.zip", "w") as archive:  # without compression: PNG has its own
        for split in sorted({"validation", "test"} & set(arguments.splits)):
            for path in sorted((run / "masks" / split).glob("*.png")):
                archive.write(path, f"{split}/{path.name}")
    lines = machine()
    if arguments.log:
        log = arguments.log.read_text(errors="replace").splitlines()
        lines += ["", *(line for line in log if re.search(r"\.py\b.*: \d+ s$", line))]
    (results / "machine_and_times.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
