#!/bin/sh
# A stored gate, monitors, series, and an evaluation that ends FAIL. Needs a server: tidegate serve
set -eu
cd "$(dirname "$0")"
command -v tidegate >/dev/null || {
  echo "tidegate is not on the path; in a clone: export PATH=\"$(cd ../../.. && pwd)/.venv/bin:\$PATH\"" >&2
  exit 2
}

tidegate gate apply -f gates.yaml
tidegate monitor push --id availability --name "checkout availability" --tag service:shop --tag env:prod --state ok
tidegate monitor push --id queue --name "payment queue" --tag service:shop --tag env:prod --state ok
tidegate monitor push --id disk --name "disk of the store" --tag team:storage --state ok

# A rollout that began 45 seconds ago; the series of the demo's faulty one stand for it.
deployed=$(python3 -c 'import time; print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 45)))')
id=$(tidegate evaluate --service shop --env prod --version v2 --previous-version v1 --deployed-at "$deployed" --no-wait)
python3 replay.py ../../../benchmarks/data/demo/faulty.csv "$deployed" checkout_latency_p95 shop_error_ratio |
  tidegate evaluation write "$id" --file - --complete

# Follows the evaluation to its end; the exit code is the decision.
tidegate evaluation watch "$id"
