"""One thread a test process, set before numpy and torch are imported: the box is shared, and spinning threads are slow.

And loggers that every test finds as the first one did.
"""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("WANDB_MODE", "disabled")  # runs offline by default; its own tests say what they want

settings.register_profile(
    "shared", deadline=None
)  # what a test takes says more about the machine than about the code
settings.load_profile("shared")


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """A server's start turns its loggers away from everybody, a verb makes every handler deaf; the next test hears again."""
    loggers = [logging.getLogger(name) for name in ("root", "sigma.serve", "uvicorn.error")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    levels = [(handler, handler.level) for handler in logging.getLogger().handlers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        if logger is not logging.getLogger():  # whose handlers are pytest's
            logger.handlers = handlers
        logger.propagate = propagate
        logger.setLevel(level)
    for handler, level in levels:
        handler.setLevel(level)
