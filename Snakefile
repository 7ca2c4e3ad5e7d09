# The run as a graph of jobs: the scripts as they are, side by side where none waits for another.
#
#     snakemake --cores 2 --config options="--preset sample"
#     snakemake --profile profiles/slurm --config options="--preset fine_tuned --folds 5"
#
# `options` go to every script; of a run folder that has settings, --run-dir is enough. A job has the cores that --workers
# says; profiles/default holds the rest of what it needs.
#
# Snakemake deletes what a job makes, before it starts and when it fails. So all that it is told of is a flag for each job,
# made/<job>.done. The files are the scripts' own: they know what is up to date, go on where they were killed, and never
# throw a network away.

import shlex
import sys
from contextlib import redirect_stdout

from config import NOT_KEPT, as_json, counts, parse_args

OPTIONS = shlex.split(config.get("options", ""))
with redirect_stdout(sys.stderr):  # standard output is for what `snakemake --dag` and its like write
    SETTINGS = parse_args("", options=OPTIONS)
FOLDS = range(SETTINGS.folds + 1)  # fold 0 is the network of all images
DATA = [str(path) for path in sorted(SETTINGS.data_dir.glob("ISIC-2017_*"))]
DATA += [str(folder) for folder in (SETTINGS.extra_data_dir, SETTINGS.extra_mask_dir) if folder]
# When one of these changed, each script looks again whether what it makes is up to date.
COUNTING = {k: v for k, v in as_json(SETTINGS).items() if k not in NOT_KEPT and not counts("nothing", k)}
SCRIPT = shlex.join([sys.executable, f"{workflow.basedir}/"]) + "{rule}.py " + shlex.join(OPTIONS)


def done(job, **wildcards):
    """Flags of a job, for all values of its wildcards that are given."""
    return expand(f"{SETTINGS.run_dir}/made/{job}.done", allow_missing=True, **wildcards)


rule seg_train:
    input: DATA
    output: touch(done("seg_train"))
    params: COUNTING, more=""
    threads: SETTINGS.workers
    shell: SCRIPT + " --workers {threads} {params.more}"


use rule seg_train as seg_predict with:
    input: DATA, done("seg_train")
    output: touch(done("seg_predict"))


use rule seg_train as resize with:
    input: DATA, done("seg_predict")
    output: touch(done("resize"))


use rule seg_train as training with:
    input: DATA, done("resize")
    output: touch(done("{backbone}_fold_{fold}"))
    params: COUNTING, more="--backbone-name {backbone} --fold {fold}"


use rule seg_train as cls_predict with:
    input: done("{backbone}_fold_{fold}", fold=FOLDS)
    output: touch(done("{backbone}_predictions"))
    params: COUNTING, more="--backbone-name {backbone}"


use rule seg_train as vote with:
    input: DATA, done("{backbone}_predictions", backbone=SETTINGS.backbones)
    output: touch(done("vote"))


use rule seg_train as report with:
    input: done("vote")
    output: touch(done("report"))


rule all:  # each job by itself: where one is missing, Snakemake would be content with later ones that stand
    default_target: True
    input:
        done("{stage}", stage=["seg_train", "seg_predict", "resize", "vote", "report"]),
        done("{backbone}_fold_{fold}", backbone=SETTINGS.backbones, fold=FOLDS),
        done("{backbone}_predictions", backbone=SETTINGS.backbones),
