"""Pages of lists: sizes, and tokens that are bound to the list they came from."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re

from tidegate_server.errors import Violation
from tidegate_server.gates.errors import InvalidError

DEFAULT_SIZE = 50
MAX_SIZE = 1000
# Numbers of 64 bit.
_POSITION = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")


def page_size(asked: int, *, default: int = DEFAULT_SIZE, most: int = MAX_SIZE) -> int:
    """Return how many items a page holds: the default for 0, never more than the most.

    Raises
    ------
    InvalidError
        When a negative number was asked for.
    """
    if asked < 0:
        raise InvalidError([Violation("page_size", f"must be 0 to {most}, not {asked}")])
    return min(asked, most) if asked else default


def write_token(cursor: str, *query: str) -> str:
    """Return the token of the next page of a list, which ``query`` tells from all others; "" on the last
    page."""
    if not cursor:
        return ""
    return base64.urlsafe_b64encode(json.dumps([_mark(query), cursor]).encode()).decode().rstrip("=")


def read_token(token: str, *query: str) -> str:
    """Return the cursor of a token; "" for no token.

    Raises
    ------
    InvalidError
        When it is no token, or one of another list, filter or page of parameters.
    """
    if not token:
        return ""
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        "".join(found).encode()  # JSON may name half a character, which no store takes
    except (ValueError, TypeError, binascii.Error):
        found = None
    if not (isinstance(found, list) and len(found) == 2 and all(isinstance(one, str) for one in found)):
        raise _no_token()
    if found[0] != _mark(query):
        raise InvalidError(
            [
                Violation(
                    "page_token",
                    "belongs to a list with another parent, filter or query; start again without one",
                )
            ]
        )
    cursor: str = found[1]
    return cursor


def read_position(token: str, *query: str) -> tuple[int, int]:
    """Return the two numbers in a token (an item, and how much of it was told), zeros for no token; raises as
    `read_token`."""
    found = _POSITION.fullmatch(read_token(token, *query) or "0:0")
    if found is None:
        raise _no_token()
    return int(found[1]), int(found[2])


def _no_token() -> InvalidError:
    return InvalidError([Violation("page_token", "is no token of this server; start again without one")])


def _mark(query: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(query).encode()).hexdigest()[:16]
