"""Who may ask, and how often: API keys from the environment or a file, hosts, token buckets. No HTTP here.

Keys live in memory as hashes only and are compared in constant time, all of them each time. Our choice.
"""

import hashlib
import hmac
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Final

LOG: Final = logging.getLogger("sigma.serve")
MIN_KEY: Final = 16
KEYS_VARIABLE: Final = "SIGMA_API_KEYS"
FILE_VARIABLE: Final = "SIGMA_API_KEYS_FILE"
_MAX_BUCKETS: Final = 10_000
_LOOK_AGAIN_S: Final = 1.0


class SecurityError(ValueError):
    """The server would not be safe as asked; the message says what to do."""


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """True for localhost and the loopback addresses."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class KeyRing:
    """The accepted keys: those given, and one a line of a file that may change while the server runs.

    Lines that are empty or begin with # do not count. To rotate: add the new key, move the callers, remove the old one.

    Raises:
        SecurityError: a key is too short, or the file cannot be read.
    """

    def __init__(self, keys: tuple[str, ...] = (), file: Path | None = None) -> None:
        self._fixed, self._file = tuple(_hashed(key) for key in keys), file
        self._from_file: tuple[bytes, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._looked, self._told = 0.0, ""
        self._lock = threading.Lock()
        if file is not None:
            self._read(strict=True)

    @classmethod
    def from_environment(cls, file: Path | None = None) -> "KeyRing":
        """Keys of SIGMA_API_KEYS (comma-separated) and of `file`, else of SIGMA_API_KEYS_FILE."""
        given = tuple(key for key in map(str.strip, os.environ.get(KEYS_VARIABLE, "").split(",")) if key)
        named = os.environ.get(FILE_VARIABLE)
        return cls(given, file or (Path(named) if named else None))

    def __bool__(self) -> bool:
        return bool(self._fixed or self._from_file) or self._file is not None

    def check(self, presented: str) -> str | None:
        """A short name of the key for logs and limits when it is accepted, else None. Compares with every key."""
        self._read(strict=False)
        digest, match = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest(), False
        for known in (*self._fixed, *self._from_file):
            match |= hmac.compare_digest(digest, known)
        return digest.hex()[:8] if match else None

    def _read(self, *, strict: bool) -> None:
        """Take over the file's keys when it has changed. A file that vanished or is broken keeps the keys read last, which is logged."""
        if self._file is None or (not strict and time.monotonic() - self._looked < _LOOK_AGAIN_S):
            return
        with self._lock:
            self._looked = time.monotonic()
            try:
                stat = self._file.stat()
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if stamp != self._stamp:
                    lines = [line.strip() for line in self._file.read_text().splitlines()]
                    keys = tuple(_hashed(line) for line in lines if line and not line.startswith("#"))
                    self._from_file, self._stamp = keys, stamp
            except (OSError, ValueError) as error:
                if strict:
                    raise SecurityError(f"API keys file {self._file}: {error}") from error
                if self._told != (
                    why := f"{type(error).__name__}: {error}"
                ):  # a key may be meant to be gone by now
                    LOG.error(
                        "API keys file %s cannot be taken over, the keys read last count: %s", self._file, why
                    )
                    self._told = why
            else:
                self._told = ""


def _hashed(key: str) -> bytes:
    if len(key) < MIN_KEY:
        raise SecurityError(
            f"an API key of {len(key)} characters arrived; {MIN_KEY} or more are needed "
            "(python -c 'import secrets; print(secrets.token_urlsafe(32))')."
        )
    return hashlib.sha256(key.encode()).digest()


def check_binding(host: str, keys: KeyRing) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises:
        SecurityError: `host` is no loopback address and there is no key.
    """
    if not is_loopback(host) and not keys:
        raise SecurityError(
            f"--host {host} can be reached from other machines; that needs an API key. "
            f"Set {KEYS_VARIABLE} or give --api-keys-file, or stay on 127.0.0.1."
        )


class RateLimit:
    """A token bucket a caller: `burst` at once, `per_minute` in the long run. Remembers the 10,000 latest callers."""

    def __init__(self, per_minute: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_minute / 60.0, float(burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, caller: str) -> float:
        """0 when the call may go ahead, else the seconds after which to try again."""
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.pop(caller, (self._burst, now))
            tokens = min(self._burst, tokens + (now - since) * self._rate)
            wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
            self._buckets[caller] = (tokens - 1 if not wait else tokens, now)
            while len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
            return wait
