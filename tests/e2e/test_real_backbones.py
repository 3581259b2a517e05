"""The same root on a real decoder: grounding by its last token, recommending with its words, through the command line."""

import json
import re
import shutil
from pathlib import Path

import pytest

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore
from sigma_core.data.catalog import ItemCatalog
from tests.e2e.slice import DAY, sigma
from tests.model.tiny_llm import save_tiny_llm

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_decoder_grounds_trains_recommends_and_searches(made: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    texts = " ".join(ArtifactStore(root).read(ItemCatalog, "item_catalog", DAY.isoformat()).frame[c.TEXT])
    llm = save_tiny_llm(tmp_path / "llm", "qwen3", words=" ".join(re.findall(r"\w+|[^\w\s]+", texts)))
    settings = (
        f"model.backbone={llm}",
        f"grounding.backbone={llm}",
        "grounding.lora_targets=[q_proj, v_proj]",
        "grounding.text_dim=16",
        "grounding.cached_texts=8",
    )
    arguments = [part for setting in settings for part in ("--set", setting)]
    printed = sigma("materialize", "--root", str(root), "--as-of", DAY.isoformat(), *arguments).stdout
    for name in ("grounded_encoder", "sigma_base", "lora_checkpoint", "user_to_item_index"):
        assert any(
            line.startswith(name) and line.rstrip().endswith("made") for line in printed.splitlines()
        ), name
    store, month = ArtifactStore(root), DAY.replace(day=1).isoformat()
    assert (store.path("sigma_base", month) / "adapter" / "adapter_model.safetensors").exists()
    heaviest = max(path.stat().st_size for path in store.path("sigma_base", month).rglob("*.safetensors"))
    assert heaviest < 2_000_000
    for name in ("sigma_base", "lora_checkpoint"):
        key = month if name == "sigma_base" else DAY.isoformat()
        assert store.manifest(name, key)["summary"]["beams_valid"] == 1.0
    wished = json.loads(
        sigma("recommend", "--root", str(root), "--user", "user003", "--query", "ice cream", "--json").stdout
    )
    assert len({row["item_id"] for row in wished}) == 10
    near = json.loads(sigma("search", "ice cream", "--root", str(root), "--top-n", "3", "--json").stdout)
    assert [row["rank"] for row in near] == [1, 2, 3]
