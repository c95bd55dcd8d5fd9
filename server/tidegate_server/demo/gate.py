"""The server of the demo: Tidegate itself on a free port of 127.0.0.1, which ends with its parent.

``python -m tidegate_server.demo.gate`` prints the address when it listens.
"""

from __future__ import annotations

import asyncio
import sys

from tidegate_server import log
from tidegate_server.app import Server
from tidegate_server.config import Config
from tidegate_server.demo.processes import until_parent_ends
from tidegate_server.errors import StartupError
from tidegate_server.pool import AnalysisPool


async def serve() -> None:
    """Serve until the parent ends.

    Raises
    ------
    StartupError
        When it cannot start.
    """
    config = Config(address="127.0.0.1:0", workers=1, log_level="warning")
    log.setup(config.log_format, config.log_level)
    pool = AnalysisPool(config.workers, timeout_seconds=config.analysis_timeout_seconds)
    try:
        await asyncio.to_thread(pool.start)
        server = Server(config, pool)
        await server.start()
        sys.stdout.write(f"{server.target}\n")
        sys.stdout.flush()
        await until_parent_ends()
        await server.stop()
    finally:
        pool.close()


def main() -> int:
    """Run the server."""
    try:
        asyncio.run(serve())
    except StartupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
