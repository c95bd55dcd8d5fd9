"""An analysis that waits until it is let go; a module of its own, so that its worker imports nothing else."""

from __future__ import annotations

import os
import time


def analyze(let_go: str, payload: bytes, max_points: int) -> object:
    """Analyze what was sent, once there is a file named `let_go`."""
    from tidegate_server import worker

    while not os.path.exists(let_go):  # noqa: PTH110 - without pathlib
        time.sleep(0.002)
    return worker.analyze(payload, max_points)
