#!/bin/bash
# A worker of the run that writes /data/results/picks; it ends with the run
#SBATCH --job-name=s1batch-workers-0123abcd
#SBATCH --ntasks=1
#SBATCH --chdir=/data
#SBATCH --output=/data/results/picks/slurm/workers-20260101T000000-abcd/logs/worker-0-%j.log
#SBATCH --no-requeue

set -e

exec /usr/bin/python3 -m distributed.cli.dask_worker tcp://10.0.0.1:4000 \
    --name worker-0 \
    --nthreads 4 \
    --memory-limit 0 \
    --death-timeout 60 \
    --no-dashboard \
    --preload-nanny s1batch.workers.forking
