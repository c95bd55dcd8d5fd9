"""Arrays that grow by columns without being copied each time."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def widened(rooms: dict[str, NDArray[Any]], name: str, kept: NDArray[Scalar], left: int, right: int) -> NDArray[Scalar]:
    """Return an array with more columns, missing (NaN or false) in them.

    Room to the right doubles, so that n columns one by one cost n and not n^2.

    Parameters
    ----------
    rooms:
        Where the room of each name is kept; the array that is returned is a view of it.
    name, kept:
        The array as it is, shape (..., columns): new, or what was returned for this name the last time.
    left, right:
        How many columns are added on either side.
    """
    width = kept.shape[-1]
    upto = left + width + right
    room = rooms.get(name)
    if left or room is None or room.shape[-1] < upto:
        missing = False if kept.dtype == bool else np.nan
        room = np.full((*kept.shape[:-1], max(upto, 2 * width)), missing, kept.dtype)
        room[..., left : left + width] = kept
        rooms[name] = room
    return room[..., :upto]
