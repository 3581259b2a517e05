"""Keeps the memory of a long-running server flat: few heaps, and what is free in them goes back to the machine.

glibc gives each thread a heap of its own and keeps what is freed there. Kept states of users come in all sizes and stay for
minutes, so that a freed page is seldom a whole one, in as many heaps as there are threads. Elsewhere (other C libraries) the
calls do nothing. Our choice.
"""

import ctypes
import time
from functools import lru_cache
from typing import Any, Final

HEAPS: Final = 2
"""The model's thread makes nearly all that is large; a second heap keeps the event loop out of its way."""
_M_ARENA_MAX: Final = -8  # of malloc.h


@lru_cache(maxsize=1)
def _libc() -> Any:
    """The process's C library when it is glibc, else None."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") else None
    except (OSError, TypeError):
        return None


def use_few_heaps() -> bool:
    """Threads started from now on share `HEAPS` heaps; False where the C library has no such setting."""
    library = _libc()
    return library is not None and bool(library.mallopt(_M_ARENA_MAX, HEAPS))


class Trimmer:
    """Gives free memory back, at most once in `seconds`: looking at every free page takes milliseconds."""

    def __init__(self, seconds: float = 20.0) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def __call__(self) -> bool:
        """True when memory was given back now; the calling thread waits for it."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        library = _libc()
        return library is not None and bool(library.malloc_trim(0))
