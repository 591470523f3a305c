#!/bin/bash
# A worker of the run that writes /data/results/picks; it ends with the run
#SBATCH --job-name=s1batch-workers-0123abcd
#SBATCH --ntasks=1
#SBATCH --chdir=/data
#SBATCH --output=/data/100%%/picks/slurm/workers/logs/worker-0-%j.log
#SBATCH --no-requeue
#SBATCH --partition=cpu
#SBATCH --mem=8G
#SBATCH --exclusive

set -e
module purge
module load apptainer/1.3
export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"

exec apptainer exec /images/s1batch.sif python -m distributed.cli.dask_worker tcp://10.0.0.1:4000 \
    --name worker-0 \
    --nthreads 4 \
    --memory-limit 8G \
    --death-timeout 60 \
    --interface ib0 \
    --local-directory "$TMPDIR" \
    --no-dashboard \
    --preload-nanny s1batch.workers.forking
