"""Starts the API on a root: checks what must hold before a port is opened, loads the day, then serves until told to stop."""

import gc
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sigma_core.artifacts import ArtifactError
from sigma_core.config import HttpConfig
from sigma_core.root_file import RootError, read_binding
from sigma_core.serving.runtime import RequestError

MAX_CONNECTIONS: Final = 2048
"""Open ones, idle ones too; past it uvicorn says 503. `HttpConfig.max_in_flight` bounds requests far below."""
KEEP_ALIVE_S: Final = 5
"""An idle connection is closed after so long; who keeps connections must let go of them before."""
_MISSING = '`sigma serve` needs the extra `serve`: pip install -c requirements.lock -e ".[serve]" ({error}).'


@dataclass(frozen=True)
class ServeOptions:
    """What the command line says."""

    host: str = "127.0.0.1"
    port: int = 8000
    as_of: str | None = None
    api_keys_file: Path | None = None
    settings: tuple[str, ...] = ()


def http_config(root: Path, settings: tuple[str, ...]) -> HttpConfig:
    """Section `http` of the root's settings and of those given.

    Raises:
        RequestError: the root holds nothing or is damaged, or a setting is not of section http.
    """
    if wrong := [s for s in settings if not s.startswith("http.")]:
        raise RequestError(f"--set {wrong[0]}: `sigma serve` takes settings of section http only.")
    try:
        return read_binding(root).config(settings).http
    except (RootError, ArtifactError) as error:
        raise RequestError(str(error)) from error


def serve(root: Path, options: ServeOptions) -> None:
    """Serve a root until SIGINT or SIGTERM; requests in flight are answered first.

    Raises:
        SecurityError: the binding needs a key and there is none.
        RequestError: the root cannot be served.
    """
    try:
        import uvicorn

        from sigma_core.serving.http.app import create_app
        from sigma_core.serving.http.connections import MAX_HEADER_BYTES, ImpatientProtocol
    except ModuleNotFoundError as error:
        raise RequestError(_MISSING.format(error=error)) from error
    from sigma_core.serving.holder import Holder, load_live_day
    from sigma_core.serving.http.heap import use_few_heaps
    from sigma_core.serving.http.security import KeyRing, check_binding
    from sigma_core.serving.live_store import LiveStore

    keys = KeyRing.from_environment(options.api_keys_file)
    check_binding(options.host, keys)
    config = http_config(root, options.settings)
    _log_to_stderr()
    use_few_heaps()
    sys.stderr.write(f"loading {root} ...\n")
    live = load_live_day(root, options.as_of)
    store = None if options.as_of else LiveStore.of_root(root)
    holder = Holder(root, live, options.as_of, store, live.config.nearline)
    app = create_app(holder, config, keys)
    gc.collect()
    gc.freeze()  # what was loaded stays; the collector need not walk it during a request
    asked = "with API keys" if keys else "without a key, for this machine only"
    sys.stderr.write(
        f"serving {live.day} (model {live.model}) on http://{options.host}:{options.port} {asked}; Ctrl-C stops\n"
    )
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        access_log=False,  # it would log paths, and with them user ids; the gate logs routes
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=10,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        http=ImpatientProtocol,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


def _log_to_stderr() -> None:
    """The server's own log, whatever the level of other loggers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("sigma.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "sigma.serve" else logging.WARNING)
