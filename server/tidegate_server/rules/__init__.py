"""Rules: what was observed in, an observation out. One module per rule type; pure, and picklable for workers.

Series rules keep a state between looks, so that a look costs only what is new:

>>> state, observation = look_at_series(rule, evaluation, state, new_blocks, now, complete=...)  # doctest:
+SKIP

Monitor rules need none:

>>> observation = look_at_monitors(rule, monitors, histories, downtimes, look_of(rule, evaluation, now))  # doctest:
+SKIP
"""

from tidegate_server.rules.monitor import look_at_monitors, look_of
from tidegate_server.rules.series import declared_metrics, look_at_series, rows_for

__all__ = ["declared_metrics", "look_at_monitors", "look_at_series", "look_of", "rows_for"]
