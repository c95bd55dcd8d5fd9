"""Whether two results are the same to the last bit."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import tidegate_analysis as ta


def same_bytes(a: ta.Result, b: ta.Result) -> bool:
    """Compare every field: arrays by their bytes, so that NaN equals NaN and -0.0 is not 0.0."""
    return all(
        getattr(a, f.name).tobytes() == getattr(b, f.name).tobytes()
        if isinstance(getattr(a, f.name), np.ndarray)
        else getattr(a, f.name) == getattr(b, f.name)
        for f in fields(a)
    )
