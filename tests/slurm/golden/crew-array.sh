#!/bin/bash
# Shards of /data/picks.yaml (8 of 8); results in /data/results/picks
# Submission 20260101T000000-abcd, by s1batch 0.1.0
#SBATCH --job-name=picks
#SBATCH --array=0-7
#SBATCH --chdir=/home/me
#SBATCH --output=/data/results/picks/slurm/20260101T000000-abcd/logs/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR2@180
#SBATCH --nodes=2

set -e
# Until s1batch listens, a signal that says that time is short must not end it.
trap '' USR2

shard=$SLURM_ARRAY_TASK_ID
exec /opt/venv/bin/python -m s1batch \
    run /data/picks.yaml \
    --output /data/results/picks \
    --shard "$shard/8" \
    --scheduler allocation \
    --workers 6 \
    --submission /data/results/picks/slurm/20260101T000000-abcd
