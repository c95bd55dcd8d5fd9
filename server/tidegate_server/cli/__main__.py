"""``python -m tidegate_server.cli`` is ``tidegate``."""

import sys

from tidegate_server.cli import main

sys.exit(main())
