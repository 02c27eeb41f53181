"""Identifiers: a prefix and a ULID in lower case, so that they sort by the time they were made."""

import re
import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_PATTERN = re.compile(r"([a-z]{3})_[0-9a-hjkmnp-tv-z]{26}")
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """`job_01k…`: 48 bits of milliseconds and 80 random bits; strictly increasing within a process."""
    global _last
    value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    with _lock:
        _last = value = max(value, _last + 1)
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the form of an id with this prefix."""
    match = _PATTERN.fullmatch(text)
    return match is not None and match[1] == prefix
