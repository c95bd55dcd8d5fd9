"""Print a recording as if its deployment had been at another time: replay.py RECORDING TIME [METRIC...]."""

import csv
import sys
from datetime import datetime

recording, deployed, *metrics = sys.argv[1:]
with open(recording, newline="", encoding="utf-8") as file:
    rows = [row for row in csv.DictReader(file) if not metrics or row["metric"] in metrics]
first = min(datetime.fromisoformat(row["timestamp"]) for row in rows if row["phase"] == "post")
shift = datetime.fromisoformat(deployed) - first
out = csv.DictWriter(sys.stdout, rows[0].keys())
out.writeheader()
for row in rows:
    row["timestamp"] = (datetime.fromisoformat(row["timestamp"]) + shift).isoformat()
    out.writerow(row)
