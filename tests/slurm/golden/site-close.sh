#!/bin/bash
# Looks at /data/100%/picks when all tasks of the submission have ended
# Submission 20260101T000000-abcd, by s1batch 0.1.0
#SBATCH --job-name=picks-close
#SBATCH --chdir=/home/me
#SBATCH --output=/data/100%%/picks/slurm/20260101T000000-abcd/logs/closing.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --partition=cpu
#SBATCH --time=04:00:00
#SBATCH --mem=16G

set -e

module purge
module load apptainer/1.3
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"

exec apptainer exec --bind /data /images/s1batch.sif s1batch \
    close /data/100%/picks/slurm/20260101T000000-abcd
