"""Work that ends its process; a module of its own, so that a worker that gets it imports nothing else."""

import os
import sys


def die(*_: object) -> None:
    os._exit(1)


def die_while_answering() -> None:
    """Write the first bytes of an answer, and no more."""
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    os.write(frame.f_locals["result_queue"]._writer.fileno(), (1000).to_bytes(4, "big") + b"x")
    os._exit(1)
