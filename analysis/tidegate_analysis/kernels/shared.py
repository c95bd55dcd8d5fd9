"""Parameters that all series share: what costs is then computed once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def same_for_all(*parameters: NDArray[np.float64]) -> bool:
    """Whether each parameter, shape (series,), has one value for all of several series. NaN is equal to nothing."""
    shape = parameters[0].shape
    return parameters[0].size > 1 and all(one.shape == shape and bool((one == one[0]).all()) for one in parameters)
