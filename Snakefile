# The run as a graph of jobs: the scripts as they are, side by side where none waits for another.
#
#     python -m data.draw_sample && snakemake --cores 2 --config options="--preset sample"
#     snakemake --profile profiles/slurm --config options="--preset fine_tuned --folds 5"
#
# `options` go to every script. If the run folder has settings, --run-dir is enough. A job has --workers cores;
# profiles/default has its memory and minutes.
#
# Snakemake deletes the outputs of a job before it starts and after a failure. Therefore its only outputs are flags,
# manifests/<job>.done. The scripts manage their own files: they skip what is up to date, continue after a kill, and never
# delete a network. A flag holds the time at which its job ended. Later jobs start again only if this content changed.

import hashlib
import os
import shlex
import sys
from contextlib import redirect_stdout

from utils.errors import InputError
from pipeline.all_stages import plan
from pipeline.inputs import check_images_and_labels
from pipeline.settings import PER_CALL_SETTINGS, affects, as_json, parse_args


def words(options):
    """The options as the shell would split them; Snakemake takes a quote at their very end away."""
    for end in ("", "'", '"'):
        try:
            return shlex.split(options + end)
        except ValueError:
            continue
    raise InputError(f"options = {options}: close every quote, as in options=\"--run-dir 'runs/my run' --folds 5\"")


def digest(paths):
    """Text that changes with the name, size or time of any file among some paths, or in folders among them."""
    found = hashlib.blake2b(digest_size=16)
    for path in paths:
        files = [os.path.join(top, name) for top, _, names in os.walk(path) for name in names] or [path]
        for file in filter(os.path.exists, sorted(files)):
            status = os.stat(file)
            entry = f"{os.path.relpath(file, path.parent)} {status.st_size} {status.st_mtime_ns}\n"
            found.update(entry.encode(errors="surrogateescape"))
    return found.hexdigest()


OPTIONS = words(str(config.get("options", "")))
with redirect_stdout(sys.stderr):  # standard output is for what `snakemake --dag` and its like write
    SETTINGS = parse_args("", options=OPTIONS)
check_images_and_labels(SETTINGS)  # missing data is named at once, with --dry-run too
if SETTINGS.overwrite:
    raise InputError("overwrite: a job that Snakemake tries again would start anew: run the scripts with --overwrite")
FOLDS = range(SETTINGS.folds + 1)  # fold 0 is the network of all images
FIRST = [job.script.removesuffix(".py") for job in plan(SETTINGS)[0]]  # without seg_train, for example, with --masks none
DATA = [*sorted(SETTINGS.data_dir.glob("*"))]
DATA += [folder for folder in (SETTINGS.extra_data_dir, SETTINGS.extra_mask_dir, SETTINGS.unet) if folder]
DATA = [path for path in DATA if not SETTINGS.run_dir.resolve().is_relative_to(path.resolve())]
# When one of these changed, each script looks again whether what it makes is up to date.
COUNTING = {k: v for k, v in as_json(SETTINGS).items() if k not in PER_CALL_SETTINGS and not affects(k, "nothing")}
COUNTING["data"] = digest(DATA)


if "{" in str(SETTINGS.run_dir):
    raise InputError(f"run_dir = {SETTINGS.run_dir}: Snakemake takes braces for wildcards: choose another folder")
OPTIONS = [word.replace("{", "{{").replace("}", "}}") for word in OPTIONS]
SCRIPT = shlex.join([sys.executable, f"{workflow.basedir}/"]) + "{rule}.py " + shlex.join(OPTIONS)


def done(job, **wildcards):
    """Flags of a job, for all values of its wildcards that are given."""
    return expand(f"{SETTINGS.run_dir}/manifests/{job}.done", allow_missing=True, **wildcards)


rule seg_train:
    output: done("seg_train")
    params: COUNTING, more=""
    threads: SETTINGS.workers
    shell: SCRIPT + " --workers {threads} {params.more} && date +%s.%N > {output:q}"


use rule seg_train as seg_predict with:
    input: done("seg_train") if "seg_train" in FIRST else []
    output: done("seg_predict")


use rule seg_train as resize with:
    input: done("seg_predict") if "seg_predict" in FIRST else []
    output: done("resize")


use rule seg_train as training with:
    input: done("resize")
    output: done("{backbone}_fold_{fold}")
    params: COUNTING, more="--backbone-name {backbone} --fold {fold}"


use rule seg_train as cls_predict with:
    input: done("{backbone}_fold_{fold}", fold=FOLDS)
    output: done("{backbone}_predictions")
    params: COUNTING, more="--backbone-name {backbone}"


use rule seg_train as vote with:
    input: done("{backbone}_predictions", backbone=SETTINGS.backbones)
    output: done("vote")


use rule seg_train as report with:
    input: done("vote")
    output: done("report")


rule all:  # each job by itself: where one is missing, Snakemake would be content with later ones that stand
    default_target: True
    input:
        done("{stage}", stage=[*FIRST, "vote", "report"]),
        done("{backbone}_fold_{fold}", backbone=SETTINGS.backbones, fold=FOLDS),
        done("{backbone}_predictions", backbone=SETTINGS.backbones),
