"""What many kernels need: numbers from whatever was given, and whether series share their parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_floats(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return an array of float64 in one memory layout; masked values are missing, what is too large is infinite.

    Raises
    ------
    ValueError
        When it holds something else than real numbers; the message names the argument.
    """
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.where(np.ma.getmaskarray(values), np.nan, values.data)
        given = np.asarray(values)
        if given.dtype.kind in "cmMV":
            raise ValueError(f"{given.dtype} is no kind of real number")
        with np.errstate(over="ignore"):
            # One memory layout: sums run in the same order, and the same numbers give the same bytes.
            return np.asarray(given, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: must be real numbers in an array: {error}") from None


def as_number(value: Any) -> float:
    """Return a float, NaN for what is no single real number."""
    try:
        return math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def same_for_all(*parameters: NDArray[np.float64]) -> bool:
    """Whether each parameter, shape (series,), has one value for all of several series. NaN is equal to nothing."""
    shape = parameters[0].shape
    return parameters[0].size > 1 and all(one.shape == shape and bool((one == one[0]).all()) for one in parameters)
