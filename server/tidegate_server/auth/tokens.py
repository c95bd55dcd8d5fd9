"""Bearer tokens: 256 random bits, of which only a hash is kept.

``tg_<id>_<secret>``: the id finds the record, the secret proves it. The secret has so many bits that a plain
SHA-256 cannot be searched; a slow hash would only slow every call down.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from tidegate_server.auth.model import Grant
from tidegate_server.gates.ports import TokenRecord

_FORM = re.compile(r"tg_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
CERTIFICATE_PREFIX = "cert:"


def new_token(
    name: str, grants: Sequence[Grant], created_by: str, now: float, ttl: float | None = None
) -> tuple[str, TokenRecord]:
    """Return a new token, to be shown once, and its record. ``ttl`` in seconds; None: it does not expire."""
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    record = TokenRecord(
        id=token_id,
        name=name,
        secret_hash=hash_secret(secret),
        grants=_stored(grants),
        create_time=now,
        created_by=created_by,
        expire_time=None if ttl is None else now + ttl,
    )
    return f"tg_{token_id}_{secret}", record


def certificate_record(identity: str, grants: Sequence[Grant], created_by: str, now: float) -> TokenRecord:
    """Return the record of a client certificate's identity (common name or alternative name); it has no
    secret."""
    return TokenRecord(
        id=certificate_id(identity),
        name=CERTIFICATE_PREFIX + identity,
        secret_hash="",
        grants=_stored(grants),
        create_time=now,
        created_by=created_by,
    )


def certificate_id(identity: str) -> str:
    """Return the record id of a certificate's identity."""
    return CERTIFICATE_PREFIX + hashlib.sha256(identity.encode()).hexdigest()[:32]


def split_token(token: str) -> tuple[str, str] | None:
    """Return id and secret of a token, None when it has not the form of one."""
    found = _FORM.fullmatch(token)
    return (found[1], found[2]) if found else None


def hash_secret(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def proves(record: TokenRecord, secret: str) -> bool:
    """Say whether a secret is that of a record, in a time that does not tell how much of it is right."""
    return bool(record.secret_hash) and hmac.compare_digest(record.secret_hash, hash_secret(secret))


def usable(record: TokenRecord, now: float) -> bool:
    """Say whether a record is neither revoked nor expired."""
    return (record.revoke_time is None or record.revoke_time > now) and (
        record.expire_time is None or record.expire_time > now
    )


def _stored(grants: Sequence[Grant]) -> tuple[tuple[str, str, str], ...]:
    return tuple((one.role.name.lower(), one.service, one.environment) for one in grants)
