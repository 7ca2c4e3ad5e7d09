"""Copy the small files of a finished run, those that its figures can be checked by, to where they can be committed.

    python benchmarks/collect.py --run-dir runs/fine_tuned --results results/isic2017_256 --log runs/fine_tuned.log

Takes settings, losses by epoch, every prediction, figures, tables and pictures as they are, the masks of validation and
test as one zip, and the lines of the log that give the seconds of each step; writes what machine it ran on. No network,
no crop and nothing over 1 MB but that zip. Of run folders beside the run, such as runs/fine_tuned_seed_1,
everything but the masks is copied too, into a folder called by the rest of their name; without what equals a file of
the run.
"""

import filecmp
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.files import PART

PATTERNS = (
    *("unet/history.csv", "unet/config.json", "masks/test/config.json", "crops/test/config.json"),
    *("backbones/*/history.csv", "backbones/*/config.json", "backbones/*/fold_*/history.csv", "folds.csv"),
    *("ablations/*/backbones/*/history.csv", "ablations/*/backbones/*/config.json", "ablations/*/predictions/*.csv"),
    *("vote/*.csv", "vote/*.json", "predictions/*.csv", "predictions/*.json", "config.json"),
    *("results/*.json", "results/*.md", "results/*.png"),
)
LIBRARIES = ("keras", "tensorflow", "jax", "torch", "numpy", "opencv-python-headless", "scikit-learn")
LARGEST = 2**20  # bytes
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Arguments:
    run_dir: Path
    """The finished run."""
    results: Path
    """Folder to copy to; what an earlier call left there is replaced."""
    splits: tuple[Literal["training", "validation", "test"], ...] = SPLITS
    """Splits whose predictions and masks are copied; those of test only once the run is whole."""
    log: Path | None = None
    """Log of the command that made the run."""


def machine():
    """Processor, cores, system and GPU, where the system tells them."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    system = f"{platform.system()} {platform.machine()}"
    found = [names[0] if names else platform.processor(), f"{os.cpu_count()} cores", system]
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        asked = subprocess.run(query, capture_output=True, text=True)
        found += [] if asked.returncode else asked.stdout.splitlines()
    return ", ".join(found)


def installed():
    """Names and versions of the libraries that are there."""
    for name in LIBRARIES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def copy(run, results, splits, known=None):
    """Copy the small files of a run folder, without predictions of other splits, and without what `known` holds too."""
    for path in sorted(path for pattern in PATTERNS for path in run.glob(pattern) if not path.name.startswith(PART)):
        left_out = any(path.stem.endswith(f"_{split}") for split in SPLITS if split not in splits)
        place = path.relative_to(run)
        if known and (known / place).exists() and filecmp.cmp(path, known / place, shallow=False):
            continue
        if path.stat().st_size <= LARGEST and not left_out:
            target = results / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def main():
    arguments = tyro.cli(Arguments, description=__doc__)
    run, results = arguments.run_dir, arguments.results
    shutil.rmtree(results, ignore_errors=True)
    copy(run, results, arguments.splits)
    for beside in sorted(run.parent.glob(f"{run.name}_*/config.json")):
        copy(beside.parent, results / beside.parent.name.removeprefix(f"{run.name}_"), arguments.splits, results)
    with zipfile.ZipFile(results / "masks.zip", "w") as archive:
        for split in ("validation", "test"):
            if split not in arguments.splits:
                continue
            for path in sorted((run / "masks" / split).glob("*.png")):
                archive.write(path, f"{split}/{path.name}")  # PNG is compressed already
    lines = [machine(), f"Python {platform.python_version()}, {', '.join(installed())}"]
    if arguments.log is not None:
        log = arguments.log.read_text(errors="replace").splitlines()
        lines += ["", *(line for line in log if re.search(r"\.py .*: \d+ s$", line))]
    (results / "machine_and_times.txt").write_text("\n".join(lines) + "\n")
    size = sum(path.stat().st_size for path in results.rglob("*") if path.is_file())
    print(f"wrote {results} ({size / 2**20:.1f} MB)")


if __name__ == "__main__":
    main()
