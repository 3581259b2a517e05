"""Which pre-trained weights a root stands on, so that a model's changed files make what was trained on them again.

Remembers their digest in `root.json`, beside the parts of the source, and compares it with what an artifact was trained on.
Weights are read again only where a file's size or time changed. minilm, mini and other BERTs are whole inside their
artifacts and have no part. Our choice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sigma_core.artifacts import ArtifactError, read_object
from sigma_core.config import SigmaConfig
from sigma_core.grounding.text_backbone import is_kept_whole
from sigma_core.pretrained import PretrainedError, find_pretrained

TRAINED_ON: Final = {
    "grounded_encoder": "grounding",
    "sigma_base": "model",
}  # the section whose `backbone` it is
_OWN: Final = ("mini", "minilm")


def weight_parts(config: SigmaConfig, old: Mapping[str, str]) -> dict[str, str]:
    """Digest and stamp of each pre-trained model that artifacts only refer to, by `backbone/SECTION`; `old` is what the root
    remembers, and stays for a model that is not on this machine now.
    """
    out: dict[str, str] = {}
    for section in TRAINED_ON.values():
        name, key = getattr(config, section).backbone, f"backbone/{section}"
        if name in _OWN:
            continue
        try:
            found = find_pretrained(name)
        except PretrainedError:
            out |= {k: old[k] for k in (key, f"{key}/stamp") if k in old}
            continue
        if section == "grounding" and is_kept_whole(found):
            continue
        stamp = found.stamp()
        is_same = key in old and old.get(f"{key}/stamp") == stamp
        out |= {key: old[key] if is_same else found.digest(), f"{key}/stamp": stamp}
    return out


def weights_changed(parts: Mapping[str, str], asset: str, folder: Path) -> bool:
    """Whether the artifact in `folder` was trained on other weights than those that `parts` (of a binding) tell.

    One whose meta.json cannot be read is left to who reads it, who says what to do.
    """
    known = parts.get(f"backbone/{TRAINED_ON.get(asset)}")
    if known is None:
        return False
    try:
        return bool(read_object(folder / "meta.json", []).get("backbone_digest", known) != known)
    except ArtifactError:
        return False
