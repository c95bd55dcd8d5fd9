"""The engine: decides which evaluations are due, looks at their rules, and stores what came of it.

Any number of replicas share one store. What is due is claimed under a lease with a fencing number; one look
and what follows from it is one transaction under that number. A replica that dies loses nothing: after its
lease another one looks again, at the same stored series, and comes to the same answer.
"""

from tidegate_server.engine.clock import ClockWatch
from tidegate_server.engine.engine import Engine, EngineHealth
from tidegate_server.engine.looks import Looks
from tidegate_server.engine.runner import RuleRunner

__all__ = ["ClockWatch", "Engine", "EngineHealth", "Looks", "RuleRunner"]
