#!/usr/bin/env bash
# The built-in sample through SLURM, by the Snakefile, on a cluster of one and of two nodes of one core each.
#
#     benchmarks/slurm.sh
#
# Needs root on Debian or Ubuntu, where it installs slurmctld, slurmd and munge, two cores, and an interpreter with
# requirements.txt and requirements-snakemake.txt (PYTHON). Both nodes are on this machine, a slurmd on a core each; the
# measurement of one node drains the other. Settings, state and logs of the cluster lie in a folder of their own (CLUSTER);
# while it runs, /etc/slurm/slurm.conf is a link to it, as the plugin of Snakemake lets no job see SLURM_CONF.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
RUN_DIR=${RUN_DIR:-runs/sample_slurm}
CLUSTER=${CLUSTER:-$(mktemp -d)}

if [ -e /etc/slurm/slurm.conf ]; then
    echo "/etc/slurm/slurm.conf stands: this machine is part of a cluster already" >&2
    exit 2
fi

if ! command -v slurmctld slurmd munged sbatch >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client munge
fi

daemons=()
trap 'kill "${daemons[@]}" 2>/dev/null || true; rm -f /etc/slurm/slurm.conf' EXIT
start() {
    "$@" >>"$CLUSTER/daemons.log" 2>&1 &
    daemons+=($!)
}

mkdir -p "$CLUSTER/state" "$CLUSTER/node1" "$CLUSTER/node2"
host=$(hostname -s)
cat >"$CLUSTER/slurm.conf" <<END
ClusterName=sample
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$CLUSTER/state
SlurmdSpoolDir=$CLUSTER/%n
SlurmctldPidFile=$CLUSTER/slurmctld.pid
SlurmdPidFile=$CLUSTER/%n.pid
# No cgroups: containers seldom have them. What a job starts keeps the core of its slurmd.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
# squeue, which tells of finished jobs in place of accounting, is not to forget them.
MinJobAge=86400
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=1 RealMemory=8000
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=1 RealMemory=8000
PartitionName=sample Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
END

ln -s "$CLUSTER/slurm.conf" /etc/slurm/slurm.conf
if ! munge -n >/dev/null 2>&1; then
    install -d -o munge -g munge /run/munge
    start runuser -u munge -- munged --foreground
fi
start slurmctld -D
start taskset --cpu-list 0 slurmd -D -N node1
start taskset --cpu-list 1 slurmd -D -N node2
for _ in {1..60}; do
    [ "$(sinfo --noheader --Node --states idle 2>/dev/null | wc -l)" = 2 ] && break
    sleep 1
done
sinfo --Node --long

# The sample needs less than the published protocol, and no GPU.
sed -E 's/gpu: [0-9]+/gpu: 0/; s/mem_mb: [0-9]+/mem_mb: 4000/; s/runtime: [0-9]+/runtime: 60/' \
    profiles/default/config.yaml >"$CLUSTER/config.yaml"

[ -e data/sample/ISIC-2017_Test_v2_Part3_GroundTruth.csv ] || "$PYTHON" -m data.sample
seconds=()
for nodes in 1 2; do
    [ $nodes = 1 ] && scontrol update NodeName=node2 State=DRAIN Reason="measured without it"
    [ $nodes = 2 ] && scontrol update NodeName=node2 State=RESUME
    rm -rf "${RUN_DIR}_$nodes"
    SECONDS=0
    "$PYTHON" -m snakemake --profile profiles/slurm --workflow-profile "$CLUSTER" --slurm-no-account \
        --slurm-status-command squeue --slurm-init-seconds-before-status-checks 5 \
        --config options="--preset sample --workers 1 --run-dir ${RUN_DIR}_$nodes"
    seconds+=($SECONDS)
done
squeue --states all --sort i --format "%.4i %.9N %.9M %.9T %k"
echo "SLURM $(slurmctld -V), Snakemake $("$PYTHON" -m snakemake --version), cores: $(nproc), $(grep -m 1 'model name' /proc/cpuinfo)"
echo "the sample through SLURM: ${seconds[0]} s on one node of one core, ${seconds[1]} s on two" \
    "(a finished job is noticed 5 to 25 s late)"
