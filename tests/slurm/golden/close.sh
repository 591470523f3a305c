#!/bin/bash
# Looks at /data/results/picks when all tasks of the submission have ended
# Submission 20260101T000000-abcd, by s1batch 0.1.0
#SBATCH --job-name=picks-close
#SBATCH --chdir=/home/me
#SBATCH --output=/data/results/picks/slurm/20260101T000000-abcd/logs/closing.log
#SBATCH --open-mode=append
#SBATCH --requeue

set -e

exec /opt/venv/bin/python -m s1batch \
    close /data/results/picks/slurm/20260101T000000-abcd
