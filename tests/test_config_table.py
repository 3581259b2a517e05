"""The table of settings holds every setting once, with the value in force, and says what each one is."""

import json
from pathlib import Path

import pytest
import yaml

from sigma_assets.cli import main
from sigma_core.config import PROFILES, SigmaConfig, load_config, profile_config
from sigma_core.config_table import config_table, settings_of
from tests.toy_world import root_values


def test_every_setting_stands_there_once_with_its_meaning() -> None:
    listed = settings_of(SigmaConfig())
    sections = {k: v for k, v in SigmaConfig().model_dump().items() if isinstance(v, dict)}
    expected = [f"{section}.{key}" for section, values in sections.items() for key in values]
    assert [s.key for s in listed] == expected
    assert not [s.key for s in listed if not s.meaning]


def test_a_row_by_hand() -> None:
    config = profile_config("toy", {"grounding": {"kd_weight": 0.75, "annotator_model": "A|B"}})
    lines = config_table(config).splitlines()
    assert lines[0] == "Settings of profile `toy`."
    assert "| `grounding.kd_weight` | 0.75 | >= 0 | weight of L_KD beside L_CL |" in lines
    assert "| `model.item_dim` | 16 | >= 2 | width of v~, the fused unique item vector |" in lines
    assert "| `data.tail_share` | 0.2 | > 0, < 1 |" in " ".join(lines)
    assert any(line.startswith("| `grounding.annotator_model` | A\\|B |") for line in lines)
    assert len({line.count("|") - line.count("\\|") for line in lines[2:]}) == 1


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_the_yaml_of_the_command_is_a_config_file(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["config", "--profile", profile, "--root", str(tmp_path)])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert yaml.safe_load(out)["model"]["backbone"]
    (tmp_path / "settings.yaml").write_text(out)
    assert load_config(profile, tmp_path / "settings.yaml").digest() == profile_config(profile).digest()


def test_the_command_shows_the_roots_own_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "root.json").write_text(json.dumps(root_values("toy", ("model.item_dim=24",))))
    with pytest.raises(SystemExit):
        main(["config", "--root", str(tmp_path), "--table", "--set", "generation.sigma_top=5"])
    out = capsys.readouterr().out
    assert "| `model.item_dim` | 24 |" in out
    assert "| `generation.sigma_top` | 5 |" in out
    assert "profile `toy`" in out
    (tmp_path / "mine.yaml").write_text(
        "generation: {sigma_top: 5}"
    )  # replaces the root's, as for materialize
    with pytest.raises(SystemExit):
        main(["config", "--root", str(tmp_path), "--table", "--config", str(tmp_path / "mine.yaml")])
    out = capsys.readouterr().out
    assert "| `generation.sigma_top` | 5 |" in out
    assert "| `model.item_dim` | 16 |" in out
