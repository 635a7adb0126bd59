#!/usr/bin/env bash
# Submits a trialrun job to SLURM, and prints what sbatch says.
#
#   scripts/slurm/submit.sh [--shards N] JOB.yaml [sbatch options] [-- options of `trialrun run`]
#
#   scripts/slurm/submit.sh jobs/medical_trial.yaml --nodes=2 --gpus-per-node=4 --time=4:00:00
#   scripts/slurm/submit.sh jobs/medical_trial.yaml --gpus-per-node=1 -- --set seeds=50
#   scripts/slurm/submit.sh jobs/medical_trial.yaml -- --run-folder runs/medical_trial/slurm-123
#
# The last one continues a run, for example of a job that was cancelled. --shards is for sites that
# allow no jobs of several nodes: it submits an array of N jobs of one node, each with a share of
# the trials, and a job after them that merges their runs into one. Folders are relative to the
# project's folder.
set -euo pipefail

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

num_shards=''
if [[ ${1:-} == --shards ]]; then
  num_shards=${2:-}
  [[ $num_shards =~ ^[1-9][0-9]*$ ]] || usage
  shift 2
fi
[[ -f ${1:-} ]] || usage
job=$(realpath "$1")
shift
options=()
while (($#)) && [[ $1 != -- ]]; do
  options+=("$1")
  shift
done
run_options=("$job" "${@:2}") # what follows the --

cd "$(dirname "$(readlink -f "$0")")/../.."
script=scripts/slurm/trialrun.sbatch
if [[ -z $num_shards ]]; then
  sbatch "${options[@]}" "$script" "${run_options[@]}"
else
  array=$(sbatch --parsable "${options[@]}" --nodes=1 --array="1-$num_shards" "$script" \
    "${run_options[@]}")
  array=${array%%;*} # the cluster's name may follow
  echo "Submitted the shards as job array $array; the job that merges them:"
  # It runs however the shards end: it merges what is finished, and says what is missing.
  sbatch "${options[@]}" --nodes=1 --dependency="afterany:$array" "$script" merge "$array" \
    "${run_options[@]}"
fi
