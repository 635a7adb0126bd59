#!/usr/bin/env bash
# Runs a job on a Ray cluster through its job server, shows its output, and exits with its status.
# Usage: RAY_ADDRESS=http://HOST:8265 scripts/submit_ray.sh [--no-wait] JOB.yaml [trialrun options]
# The token is read from RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token.
set -euo pipefail
folder=$(dirname "$(readlink -f "$0")")
python=$folder/../.venv/bin/python
if ! "$python" -c 'import aiohttp, requests, trialrun' 2>/dev/null; then
  "$folder/setup" jobs
fi
exec "$python" "$folder/submit_ray.py" "$@"
