"""What the engine needs of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tidegate_server.gates.model import Evaluation, Observation


class RuleRunner(Protocol):
    """Looks at the open rules of one evaluation: its series and its monitors' timelines, as stored.

    What it answers must follow from the evaluation, the stored series, the timelines and the time alone. It may
    keep what it has computed, but must come to the same answer without it: another replica does.
    """

    async def look(self, evaluation: Evaluation, now: float, behind: float) -> Mapping[str, Observation]:
        """Returns what the open rules see, by rule name; a rule with nothing new to see may be left out.

        Args:
            evaluation: what is looked at.
            now: its own time, by which its windows end.
            behind: how many seconds that stands behind the clock, by which states are told.

        Raises:
            UnavailableError: if the store cannot be reached; the engine tries again.
            Exception: anything else counts as "could not look" for every rule that is open.
        """
        ...

    def forget(self, evaluation_id: str) -> None:
        """Drops what was kept of an evaluation: it is over, or another replica has it."""
        ...
