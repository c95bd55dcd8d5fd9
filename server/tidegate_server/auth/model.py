"""Roles, grants and principals."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache


class Role(enum.IntEnum):
    """What somebody may do; each role may do what those before it may.

    ``VIEWER`` reads. ``DEPLOYER`` starts evaluations, feeds, cancels and labels them. ``OPERATOR`` changes
    gates, overrides decisions, and tells the states of monitors.
    """

    VIEWER = 1
    DEPLOYER = 2
    OPERATOR = 3


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in a scope. Patterns take ``*`` for any text and ``?`` for one character."""

    role: Role
    service: str = "*"
    environment: str = "*"

    def covers(self, service: str, environment: str) -> bool:
        """Say whether the scope holds a service in an environment."""
        return _fits(self.service, service) and _fits(self.environment, environment)

    @property
    def everywhere(self) -> bool:
        """Whether the scope is every service and environment."""
        return self.service == "*" and self.environment == "*"


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    parts = (".*" if one == "*" else "." if one == "?" else re.escape(one) for one in pattern)
    return re.compile("".join(parts), re.DOTALL)


def _fits(pattern: str, text: str) -> bool:
    return pattern == "*" or _expression(pattern).fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who calls: a name for the audit log, and what it may do."""

    name: str
    grants: tuple[Grant, ...]

    def may(self, role: Role, service: str, environment: str) -> bool:
        """Say whether it has at least this role there."""
        return any(one.role >= role and one.covers(service, environment) for one in self.grants)

    def may_somewhere(self, role: Role) -> bool:
        """Say whether it has at least this role in any scope."""
        return any(one.role >= role for one in self.grants)

    def may_everywhere(self, role: Role) -> bool:
        """Say whether it has at least this role over all services and environments."""
        return any(one.role >= role and one.everywhere for one in self.grants)

    def scopes(self, role: Role) -> tuple[tuple[str, str], ...] | None:
        """Return where it has at least this role; None is everywhere."""
        if self.may_everywhere(role):
            return None
        return tuple((one.service, one.environment) for one in self.grants if one.role >= role)


def grants_of(stored: Iterable[tuple[str, str, str]]) -> tuple[Grant, ...]:
    """Return grants from (role, service pattern, environment pattern); roles that are not known grant
    nothing."""
    return tuple(
        Grant(Role[role.upper()], service, environment)
        for role, service, environment in stored
        if role.upper() in Role.__members__
    )


ANYBODY = Principal("anonymous", (Grant(Role.OPERATOR),))
"""Who calls while authorisation is off."""

NOBODY = Principal("nobody", ())
"""Who calls when nobody was asked: a face that forgets to ask may do nothing."""
