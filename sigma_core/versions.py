"""Which code runs: the package's version and, in a git checkout, the commit; the version of generation. No path, no model.

Our choice.
"""

import subprocess
from pathlib import Path
from typing import Final

from sigma_core import __version__

GENERATION_VERSION: Final = "1"
"""Raise it when the code of `sigma_core/generation/` answers otherwise: lists, remembered beams and judged results of before
are then made again, whatever asset or benchmark keeps them.
"""
CHECKOUT: Final = Path(__file__).resolve().parents[1]


def git_commit() -> str:
    """The commit of the code that runs, "" outside a checkout of its own."""
    return _git("rev-parse", "HEAD") if (CHECKOUT / ".git").exists() else ""


def sigma_version() -> dict[str, str]:
    """`sigma`: the package's version; `sigma_commit`, in a checkout: the commit, with "+changes" where tracked files differ."""
    commit = git_commit()
    if not commit:
        return {"sigma": __version__}
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"sigma": __version__, "sigma_commit": commit + ("+changes" if changed else "")}


def _git(*arguments: str) -> str:
    """What git says; "" where it is missing or refuses."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
