#!/bin/bash
# Shards of /data/it's here/picks.yaml (3 of 2500); results in /data/100%/picks
# Submission 20260101T000000-abcd, by s1batch 0.1.0
#SBATCH --job-name=picks
#SBATCH --array=0-1,497%1
#SBATCH --chdir=/home/me
#SBATCH --output=/data/100%%/picks/slurm/20260101T000000-abcd/logs/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR2@300
#SBATCH --partition=cpu
#SBATCH --time=04:00:00
#SBATCH --mem=8G
#SBATCH --exclusive
#SBATCH --comment="a \"b\" \\c"

set -e
# Until s1batch listens, a signal that says that time is short must not end it.
trap '' USR2

module purge
module load apptainer/1.3
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"

shard=$((SLURM_ARRAY_TASK_ID + 2002))
exec apptainer exec --bind /data /images/s1batch.sif s1batch \
    run '/data/it'"'"'s here/picks.yaml' \
    --set engine.max_in_flight=8 \
    --set 'name="a b"' \
    --output /data/100%/picks \
    --shard "$shard/2500" \
    --accept refused,unreadable \
    --submission /data/100%/picks/slurm/20260101T000000-abcd
