"""W&B behind the core's `Tracker`: offline or online runs of one training stage each, or nothing at all.

Mode: WANDB_MODE when set; else online when there is a WANDB_API_KEY; else the configured one (disabled). dagster-wandb
does not import with this wandb, and its IO manager needs the network; this is all that is needed of it. Offline, not even
a DNS look-up leaves the machine. Source: stack.md, section 4.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sigma_core.tracking import NullTracker, Tracker

MODES: Final = ("online", "offline", "disabled")
PROJECT: Final = "sigma"


def tracking_mode(configured: str) -> str:
    """The mode that holds, environment first.

    Raises:
        ValueError: WANDB_MODE is none of online, offline, disabled.
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else configured)
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode not in MODES:
        raise ValueError(f"WANDB_MODE={mode!r}; needed one of {', '.join(MODES)}.")
    return mode


class WandbTracker:
    """One W&B run. `url` is where to see it: a web address, or the offline folder to `wandb sync`."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self.url = str(
            run.dir if run.settings.mode == "offline" else run.url
        )  # offline, asking for a URL warns

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures, at a step where there is one."""
        self._run.log(dict(metrics), step=step)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record a small table under `name`."""
        import wandb

        columns = list(rows[0]) if rows else []
        data = [[row.get(column) for column in columns] for row in rows]
        self._run.log({name: wandb.Table(columns=columns, data=data)})

    def close(self) -> None:
        """Finish the run; its files are complete afterwards."""
        self._run.finish()


def open_tracker(mode: str, folder: Path, *, name: str, group: str, config: Mapping[str, Any]) -> Tracker:
    """A tracker for one run: `NullTracker` when disabled, else a W&B run with its files under `folder`."""
    if mode == "disabled":
        return NullTracker()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import; offline it would look a host up
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        os.environ.setdefault(variable, str(folder / variable.removeprefix("WANDB_").lower()))
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        name=name,
        group=group,
        job_type=name.split("/")[0],
        config=dict(config),
        settings=settings,
    )
    return WandbTracker(run)
