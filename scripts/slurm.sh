#!/usr/bin/env bash
# Train on the nodes of a SLURM allocation; arguments go to train.py. See docs/scale.md.
#
#   sbatch --nodes=2 --gpus-per-node=8 scripts/slurm.sh -opt experiments/stereo_lm.yml datasets.train.batch_size=16
#
#SBATCH --job-name=waveschool
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
if [ -z "${SLURM_JOB_NODELIST:-}" ]; then
    echo "slurm.sh runs inside an allocation: sbatch --nodes=2 --gpus-per-node=8 scripts/slurm.sh -opt FILE" >&2
    exit 2
fi
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
processes=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((SLURM_CPUS_PER_TASK / processes))}
exec srun --kill-on-bad-exit=1 .venv/bin/python -m torch.distributed.run \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$processes" --max-restarts=3 \
    --rdzv-backend=c10d --rdzv-endpoint="$first_node:29500" --rdzv-id="$SLURM_JOB_ID" \
    train.py "$@"
