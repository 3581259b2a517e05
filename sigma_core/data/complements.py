"""What is used together, though a shop keeps it apart: `complements.yaml` in words. Knows no catalog. Our own list.

Source: paper, world knowledge of grounding (what goes together); the list is our choice.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sigma_core.yaml_files import parse_yaml

COMPLEMENTS_FILE: Final = Path(__file__).with_suffix(".yaml")


@lru_cache(maxsize=1)
def load_complements() -> dict[str, list[str]]:
    """What is used -> words for what is used with it."""
    found: dict[str, Any] = parse_yaml(COMPLEMENTS_FILE.read_text())
    return {str(name): [str(word) for word in words] for name, words in found.items()}
