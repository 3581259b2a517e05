"""Which errors of a load speak of damaged files, and which of the machine. Knows no artifact. Our choice."""

import errno
import re
from typing import Final

import polars as pl
from safetensors import SafetensorError

UNREADABLE: Final = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    AttributeError,
    pl.exceptions.PolarsError,
    SafetensorError,
)
"""What a `load` raises over files that are not what `save` wrote, in the words of many libraries."""
_OF_MACHINE: Final = {errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
_TOLD: Final = re.compile(r"(?i)allocate memory|out of memory|os error (\d+)")


def is_damage(error: Exception) -> bool:
    """Whether the files may be to blame; False where memory, open files or the right to read ran out."""
    if getattr(error, "errno", None) in _OF_MACHINE or isinstance(error, PermissionError):
        return False
    told = _TOLD.search(str(error))
    return told is None or (told[1] is not None and int(told[1]) not in _OF_MACHINE)
