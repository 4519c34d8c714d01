"""The write keys: which are let in, and what tells them apart without telling them.

A fingerprint is salted, so that it says nothing beyond the collector that made it, and cannot be
looked up anywhere. The same key has the same one as long as the salt is kept, which is as long
as the events are: in their file, or in memory. Who has the salt too can try keys against it.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final

from asyncanalytics.collector.answers import Refused
from asyncanalytics.collector.masking import masked

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

_SALT_BYTES: Final = 32
_LENGTH: Final = 12  # hex digits
_MAKE: Final = "CREATE TABLE salts (salt BLOB NOT NULL)"


def kept_salt(db: sqlite3.Connection) -> bytes:
    """Return the salt of a database; where it has none, make one, and salt what stands there."""
    return _salt(db) or _make_salt(db)


def _salt(db: sqlite3.Connection) -> bytes | None:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'salts'").fetchone():
        return None
    row = db.execute("SELECT salt FROM salts").fetchone()
    return row and bytes(row[0])


def _make_salt(db: sqlite3.Connection) -> bytes:
    made = secrets.token_bytes(_SALT_BYTES)
    db.create_function("salted", 1, lambda found: found and _salted(made, found))
    with db:
        db.execute("BEGIN IMMEDIATE")
        if kept := _salt(db):  # another process was quicker
            return kept
        db.execute(_MAKE)
        db.execute("INSERT INTO salts VALUES (?)", (made,))
        db.execute("UPDATE events SET key_fingerprint = salted(key_fingerprint)")
        db.execute("UPDATE OR REPLACE keys SET fingerprint = salted(fingerprint)")
    return made


def _salted(salt: bytes, digits: str) -> str:
    """Salt a key's digits, those of a file from before there was a salt as well as new ones."""
    return hashlib.blake2b(digits.encode(), key=salt, digest_size=_LENGTH // 2).hexdigest()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """The write keys that are let in, as digests: the keys themselves are not held."""

    def __init__(self, write_keys: Iterable[str] | None, *, salt: bytes) -> None:
        """Let in these keys; None lets in every request, with a key or without."""
        self._digests = None if write_keys is None else {_digest(each) for each in write_keys}
        self._salt = salt

    def fingerprint(self, key: str) -> str:
        """Return what stands for a key, let in or not."""
        return _salted(self._salt, _digest(key)[:_LENGTH])

    def check(self, key: str | None) -> str | None:
        """Return the key's fingerprint, or raise `Refused` with 401."""
        if self._digests is not None and (key is None or _digest(key) not in self._digests):
            reason = "missing_write_key" if key is None else "unknown_write_key"
            raise Refused(401, reason, "every request needs a write key that this collector knows")
        return None if key is None else self.fingerprint(key)


class Keys:
    """The keys of one request, each checked once."""

    def __init__(self, ring: KeyRing) -> None:
        """Check against this ring."""
        self._check = ring.check
        self._prints: dict[str | None, str | None] = {}

    def fingerprint(self, key: str | None) -> str | None:
        """Return the key's fingerprint, or raise `Refused` with 401."""
        if key not in self._prints:
            self._prints[key] = None  # a key that is refused is hidden as well
            self._prints[key] = self._check(key)
        return self._prints[key]

    def plain(self) -> list[str]:
        """Return the keys themselves, to hide them."""
        return [key for key in self._prints if key is not None]

    def masks(self) -> dict[str, str]:
        """Return what may be shown of each, by its fingerprint."""
        return {each: masked(key) for key, each in self._prints.items() if key and each}
