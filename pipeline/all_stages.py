"""Run all six stages and the report, except those that are up to date; `make run` and `make demo` call this.

    python -m pipeline.all_stages --preset sample --side-by-side 0

--side-by-side is the number of trainings at once: 1 without this option, 0 for as many as cores and free memory allow.
All other options go to every script. The output of a script is shown; if it has nothing to do, one line is printed.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

from pipeline.inputs import check_images_and_labels, origin_of_unet
from pipeline.manifest_files import list_manifests
from pipeline.paths import RunFolder
from pipeline.settings import is_given, parse_args
from utils.errors import one_sentence_errors

REPOSITORY = Path(__file__).parent.parent
GIB_A_TRAINING = 3  # memory of one training on the built-in sample, with a reserve
# If several processes share a GPU, none may take all of its memory.
SHARED_GPU = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

Job = namedtuple("Job", ["title", "script", "options"])


class StageFailed(Exception):
    """A script ended with an exit code other than 0."""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side-by-side", type=int, default=1, metavar="N", help="trainings at once")
    chosen, options = parser.parse_known_args()
    if chosen.side_by_side < 0:
        parser.error(f"--side-by-side {chosen.side_by_side}: give 0 or more")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # each script prints this itself
        config = parse_args("", options=options)
    check_images_and_labels(config)
    before, networks, after = plan(config)
    began, at_once = time.monotonic(), chosen.side_by_side or fitting(len(networks))
    try:
        run_chain(before, config, options)
        with ThreadPoolExecutor(at_once) as pool:
            chains = [pool.submit(run_chain, chain, config, options, at_once > 1) for chain in networks]
            try:
                for chain in chains:
                    chain.result()
            except StageFailed:
                pool.shutdown(cancel_futures=True)
                raise
        run_chain(after, config, options)
    except StageFailed as error:
        sys.exit(error.args[0])
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"total time: {minutes} min {seconds} s")


def plan(config):
    """All jobs: those before the networks, a list of two for each network, and those after.

    No U-Net is trained if one is copied with --unet, now or before, or if no masks are used.
    """
    origin = origin_of_unet(config)
    train = not (config.unet or origin == "copied") or (origin == "trained" and not is_given("unet"))
    before = [Job("stage 1 of 6", "seg_train.py", [])] if train and config.masks != "none" else []
    before += [Job("stage 2 of 6", "seg_predict.py", [])] if config.masks != "none" else []
    before += [Job("stage 3 of 6", "resize.py", [])]
    networks = []
    for number, name in enumerate(config.backbones, 1):
        network, options = f"network {number} of {len(config.backbones)}", ["--backbone-name", name]
        networks.append(
            [
                Job(f"stage 4 of 6, {network}", "training.py", options),
                Job(f"stage 5 of 6, {network}", "cls_predict.py", options),
            ]
        )
    return before, networks, [Job("stage 6 of 6", "vote.py", []), Job("report", "report.py", [])]


def run_chain(jobs, config, options, several=False):
    """Run jobs one after another; see `run`."""
    for job in jobs:
        run(job, config, options, several)


def run(job, config, options, several=False):
    """Run a script and show its output, or one line if it has nothing to do.

    Args:
        job: the `Job`.
        config: the settings.
        options: command-line words for every script.
        several: whether other jobs run at the same time. Each line then starts with the number of the network.

    Raises:
        StageFailed: with the exit code, if it is not 0.
    """
    command, title = [job.script, *options, *job.options], f"{job.title}: {shlex.join([job.script, *job.options])}"
    prefix = f"{job.title.split()[-3]}: " if several else ""
    # The progress bars of several jobs would overwrite each other. In a pipe they are lines.
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT if several else None}
    streams |= {"env": os.environ | (SHARED_GPU if several else {}), "encoding": "utf-8", "errors": "backslashreplace"}
    before, waiting, shown = stamps(job, config), [], False

    def show():
        nonlocal shown
        if not shown:
            print(f"\n{title}" if not prefix else title)
            shown = True
        print("".join(prefix + line for line in waiting), end="", flush=True)
        waiting.clear()

    with subprocess.Popen([sys.executable, "-u", *command], cwd=REPOSITORY, **streams) as process:
        for line in process.stdout:
            waiting.append(line)
            if shown or stamps(job, config) != before:
                show()
    if process.returncode:
        show()
        raise StageFailed(process.returncode if process.returncode > 0 else 128 - process.returncode)
    if shown or stamps(job, config) != before:
        show()
    else:
        address = waiting[-1:] if job.script == "report.py" else []
        print(f"{title}: nothing changed\n{''.join(address)}", end="", flush=True)


def stamps(job, config):
    """Modification times of the manifests that a job writes. They change once it makes something."""
    name = job.options[-1] if job.options else ""
    manifests = list_manifests(RunFolder(config.run_dir).manifests)
    return {path.name: path.stat().st_mtime_ns for path in manifests if name in path.stem}


def fitting(networks):
    """Number of trainings on the built-in sample that this machine can run at once: at least one."""
    return max(1, min(networks, os.cpu_count() or 1, int(available_gib() / GIB_A_TRAINING)))


def available_gib():
    """Available memory in GiB. If the system does not report it, half of all memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (kib,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        return kib / 2**20
    except (OSError, ValueError):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**31 if pages else 0


if __name__ == "__main__":
    with one_sentence_errors():
        main()
