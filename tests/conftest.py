"""One thread a test process, set before numpy and torch are imported: the box is shared, and spinning threads are slow."""

import os

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
