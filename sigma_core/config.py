"""Every setting, once: `SigmaConfig` holds the sections of `config_sections.py`, `config_serving.py` and `config_ablation.py`; profiles
and files fill it.

A stage reads its own section and nothing else. The digest of the sections it names goes into the code version of its
assets, so a changed setting marks exactly its own artifacts as stale. No I/O but `load_config`.
"""

import difflib
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from yaml import YAMLError

from sigma_core.artifacts import digest_json
from sigma_core.config_ablation import AblationConfig
from sigma_core.config_sections import (
    DataConfig,
    EvaluationConfig,
    GenerationConfig,
    GroundingConfig,
    InstructionConfig,
    ModelConfig,
    PromotionConfig,
    RuntimeConfig,
    Section,
    TokenizationConfig,
    TrainingConfig,
)
from sigma_core.config_serving import HttpConfig, NearlineConfig, ServingConfig
from sigma_core.yaml_files import parse_yaml

__all__ = [
    "PROFILES",
    "AblationConfig",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "GenerationConfig",
    "GroundingConfig",
    "HttpConfig",
    "InstructionConfig",
    "ModelConfig",
    "NearlineConfig",
    "PromotionConfig",
    "RuntimeConfig",
    "Section",
    "ServingConfig",
    "SigmaConfig",
    "TokenizationConfig",
    "TrainingConfig",
    "load_config",
    "parse_date",
    "profile_config",
]


class SigmaConfig(Section):
    """All sections. Its digest binds a root to what it was made with."""

    profile: str = "demo"
    runtime: RuntimeConfig = RuntimeConfig()
    data: DataConfig = DataConfig()
    grounding: GroundingConfig = GroundingConfig()
    tokenization: TokenizationConfig = TokenizationConfig()
    instruction: InstructionConfig = InstructionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    generation: GenerationConfig = GenerationConfig()
    serving: ServingConfig = ServingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ablation: AblationConfig = AblationConfig()
    promotion: PromotionConfig = PromotionConfig()
    nearline: NearlineConfig = NearlineConfig()
    http: HttpConfig = HttpConfig()

    def digest(self) -> str:
        """Digest of everything that can change a result: all but `runtime.threads` and `device`, `nearline` and `http`."""
        values = self.model_dump(mode="json", exclude={"nearline", "http"})
        values["runtime"] = {"seed": self.runtime.seed}
        return digest_json(values)


PROFILES: dict[str, dict[str, Any]] = {
    "demo": {},
    "toy": {  # seconds, for tests: everything real, everything tiny
        "grounding": {"train_steps": 3, "batch_size": 16, "id_dim": 8, "text_dim": 32, "pairs_per_view": 200,
                      "id_iterations": 3},
        "tokenization": {"codebook_size": 8, "num_levels": 3},
        "instruction": {"users_per_shard": 24, "max_recent": 6, "max_favorites": 8, "shard_stride_days": 7},
        "model": {"hidden_dim": 32, "num_layers": 1, "num_heads": 2, "item_dim": 16, "fusion_hidden": 32},
        "training": {"base_steps": 12, "lora_steps": 6, "contexts_per_batch": 4, "base_window_days": 21,
                     "lora_window_days": 14},
        "generation": {"num_prefixes": 6, "sigma_top": 4},
        "evaluation": {"bootstrap_samples": 100, "sample_users": 30},
        "ablation": {"steps": 3, "households": 20},
        "promotion": {"bootstrap_samples": 100, "guardrail_households": 8, "refit_holdout_days": 0},
    },
    "standard": {"training": {"base_steps": 3000, "lora_steps": 300}, "grounding": {"train_steps": 400, "batch_size": 256, "max_texts": 8000, "head_steps": 200}},
    "llm": {  # SmolLM2-135M with LoRA: hours on CPU
        "model": {"backbone": "smollm2-135m"},
        "training": {"base_steps": 600, "lora_steps": 60, "contexts_per_batch": 4, "lora_rank": 16, "lora_alpha": 32,
                     "base_learning_rate": 1e-3, "lora_learning_rate": 5e-4},
        "generation": {"num_prefixes": 32},
    },
}  # fmt: skip


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type, or out of range."""


def profile_config(name: str, overrides: dict[str, Any] | None = None) -> SigmaConfig:
    """The named profile with nested `overrides` applied.

    Raises:
        ConfigError: unknown profile, unknown key, or a value out of range (the message names the key).
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}; there are {', '.join(PROFILES)}.")
    values = _merge({"profile": name}, PROFILES[name])
    values = _merge(values, overrides or {})
    try:
        return SigmaConfig.model_validate(values)
    except ValidationError as error:
        first: Any = error.errors()[0]
        path = tuple(str(p) for p in first["loc"])
        said = _said(path, first["type"], first["msg"])
        raise ConfigError(f"setting {'.'.join(path)}: {said} (arrived: {first.get('input')!r}).") from error


def _said(path: tuple[str, ...], kind: str, message: str) -> str:
    """What is wrong with a setting, in words for who wrote it."""
    name = ".".join(path)
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "tuple_type":
        return f"needed a list: --set '{name}=[a, b]', or [a, b] in a file"
    if kind == "string_type":  # YAML has its own mind about NO (a country) or 1.5
        return f"needed text, in quotes where it may be taken for something else: --set '{name}=\"NO\"'"
    if kind == "dict_type":
        return f"needed names with values: --set '{name}={{a: 1, b: 2}}', or {{a: 1, b: 2}} in a file"
    if kind == "model_type":
        return f"needed a section with its settings below it, as `sigma config` prints {name}"
    return message.removeprefix("Value error, ").rstrip(".")


def _unknown(path: tuple[str, ...]) -> str:
    """What to say of a section or setting that there is not."""
    section = SigmaConfig.model_fields.get(path[0])
    of: Any = SigmaConfig if len(path) == 1 or section is None else section.annotation
    near = difflib.get_close_matches(path[-1], of.model_fields, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(of.model_fields)}"
    return f"unknown {'section' if len(path) == 1 else 'setting'}; {hint}"


def load_config(profile: str, file: Path | None = None, settings: tuple[str, ...] = ()) -> SigmaConfig:
    """Profile, then a YAML file, then `section.key=value` settings; the later wins.

    Raises:
        ConfigError: as `profile_config`; or the file, or the value of a setting, is no YAML. What is wrong is named.
    """
    values: dict[str, Any] = {}
    if file is not None:
        profile_config(profile)
        values = _settings_of(file)
        try:
            profile_config(profile, values)
        except ConfigError as error:
            raise ConfigError(f"--config {file}: {error}") from error
    for setting in settings:
        path, sep, raw = setting.partition("=")
        if not sep or "." not in path:
            raise ConfigError(
                f"--set {setting!r}: needed section.key=value, for example training.base_steps=100."
            )
        section, key = path.split(".", 1)
        try:
            value = parse_yaml(raw)
        except YAMLError as error:
            raise ConfigError(f"--set {setting!r}: the value is no YAML: {_short(error)}.") from error
        values = _merge(values, {section: {key: value}})
    return profile_config(profile, values)


def _settings_of(file: Path) -> dict[str, Any]:
    """The sections in a YAML file."""
    advice = "write sections like `sigma config` prints them"
    if not file.exists():
        raise ConfigError(f"--config {file} does not exist.")
    try:
        loaded = parse_yaml(file.read_text()) or {}
    except OSError as error:
        raise ConfigError(
            f"--config {file} cannot be read ({error.strerror}); needed a YAML file."
        ) from error
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"--config {file} is no YAML: {_short(error)}; {advice}.") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"--config {file} holds a {type(loaded).__name__}; {advice}.")
    return {str(section): given for section, given in loaded.items()}


def _short(error: Exception) -> str:
    """What a parser said, and where, without the text around it."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{said} in line {mark.line + 1}" if mark else said


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merge(out[key], value) if both else value
    return out


def parse_date(text: str) -> date:
    """An ISO date; anything else is a `ConfigError` with an example."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a date; write it like 2017-10-23.") from error
