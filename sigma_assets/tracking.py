"""W&B behind the core's `Tracker`: offline or online runs of one training stage each, or nothing at all.

Mode: WANDB_MODE when set; else online when there is a WANDB_API_KEY; else the configured one (offline). dagster-wandb
does not import with this wandb, and its IO manager needs the network; this is all that is needed of it. Offline, not even
a DNS look-up leaves the machine. Source: stack.md, section 4.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sigma_core.tracking import NullTracker

LOG = logging.getLogger("sigma.wandb")

MODES: Final = ("online", "offline", "disabled")
PROJECT: Final = "sigma"
INIT_SECONDS: Final = 30
FINISH_SECONDS: Final = 60
RETRIES: Final = 2
RETRY_SECONDS: Final = 3


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


class NullRun(NullTracker):
    """A run that keeps nothing."""

    url = ""

    def summary(self, figures: Mapping[str, Any]) -> None:
        """Drop the figures."""

    def image(self, name: str, path: Path) -> None:
        """Drop the picture."""

    def artifact(self, name: str, kind: str, folder: Path, aliases: Sequence[str]) -> None:
        """Drop the artifact."""

    def fail(self) -> None:
        """Do nothing."""


class WandbTracker(NullRun):
    """One W&B run. `url` is where to see it: a web address, or the offline folder to `wandb sync`.

    Nothing that W&B does can fail a training: the first error is warned of, and from then on the run is only ended.
    """

    def __init__(self, run: Any) -> None:
        self._run, self._is_broken, self._code = run, False, 0
        self.url = str(
            run.dir if run.settings.mode == "offline" else run.url
        )  # offline, asking for a URL warns

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record figures, at a step where there is one."""
        self._try("logging", lambda: self._run.log(dict(metrics), step=step))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record a small table under `name`."""
        import wandb

        columns = list(rows[0]) if rows else []
        data = [[row.get(column) for column in columns] for row in rows]
        self._try("a table", lambda: self._run.log({name: wandb.Table(columns=columns, data=data)}))

    def summary(self, figures: Mapping[str, Any]) -> None:
        """Set the figures that stand for the whole run."""
        self._try("the summary", lambda: self._run.summary.update(dict(figures)))

    def image(self, name: str, path: Path) -> None:
        """Record a picture."""
        import wandb

        self._try("a picture", lambda: self._run.log({name: wandb.Image(str(path))}))

    def artifact(self, name: str, kind: str, folder: Path, aliases: Sequence[str]) -> None:
        """Record the files of a folder as a version of artifact `name` with these aliases."""
        import wandb

        def send() -> None:
            made = wandb.Artifact(name, type=kind)
            for path in sorted(folder.rglob("*")):  # add_dir would talk on the terminal
                if path.is_file():
                    made.add_file(str(path), name=path.relative_to(folder).as_posix())
            self._run.log_artifact(made, aliases=list(aliases))

        self._try("an artifact", send)

    def fail(self) -> None:
        """Say at the end that what was tracked failed."""
        self._code = 1

    def close(self) -> None:
        """Finish the run, waiting for a dead server or disk a minute at most.

        An offline run's file is whole a moment later: W&B's service writes it behind, at the latest when this process ends.
        """
        ending = threading.Thread(target=self._finish, daemon=True)
        ending.start()
        ending.join(FINISH_SECONDS)
        if ending.is_alive():
            LOG.warning(
                "W&B has not taken %s in %d s; later: `wandb sync %s`", self.url, FINISH_SECONDS, self._dir()
            )

    def _finish(self) -> None:
        was_broken, self._is_broken = (
            self._is_broken,
            False,
        )  # one failed call is no reason to leave the run open
        self._try("the end", lambda: self._run.finish(exit_code=self._code))
        self._is_broken |= was_broken

    def _dir(self) -> str:
        return str(self._run.dir)

    def _try(self, what: str, call: Callable[[], Any]) -> None:
        if self._is_broken:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 whatever it is, the training matters more
            self._is_broken = True
            LOG.warning("W&B: %s failed (%s: %s); going on without it", what, type(error).__name__, error)


def open_tracker(mode: str, folder: Path, *, name: str, group: str, config: Mapping[str, Any]) -> NullRun:
    """A tracker for one run: `NullRun` when disabled or when W&B cannot begin one, else a W&B run with files under `folder`."""
    if mode == "disabled":
        return NullRun()
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import; offline it would look a host up
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        os.environ.setdefault(variable, str(folder / variable.removeprefix("WANDB_").lower()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return WandbTracker(_begin(mode, folder, name, group, config))
    except Exception as error:  # noqa: BLE001 an outage, a full disk, a broken installation: none of them stops a training
        LOG.warning("W&B: no run could be opened (%s: %s); going on without it", type(error).__name__, error)
        return NullRun()


def _begin(mode: str, folder: Path, name: str, group: str, config: Mapping[str, Any]) -> Any:
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        init_timeout=INIT_SECONDS,
        x_graphql_retry_max=RETRIES,
        x_file_stream_retry_max=RETRIES,
        x_file_transfer_retry_max=RETRIES,
        x_graphql_retry_wait_max_seconds=RETRY_SECONDS,
        x_file_stream_retry_wait_max_seconds=RETRY_SECONDS,
        x_file_transfer_retry_wait_max_seconds=RETRY_SECONDS,
    )
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        name=name,
        group=group,
        job_type=name.split("/")[0],
        tags=[group],
        config=dict(config),
        settings=settings,
        reinit="create_new",
    )
