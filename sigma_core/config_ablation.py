"""Settings of the monthly ablation: which arms, for how many steps, judged on how many households. Holds one section. No I/O.

The steps of an arm's training are these, whatever `training` says; all else of an arm is the root's.
"""

from pydantic import Field, field_validator

from sigma_core.config_sections import Section


class AblationConfig(Section):
    """What `ablation_report` of a month is asked for. Few steps: it says that a part stopped working, not what it is worth."""

    arms: tuple[str, ...] = Field(
        ("headline",), min_length=1, description="names or groups of arms (`sigma benchmark ablation --arms`)"
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each arm is trained once a seed")
    steps: int = Field(100, ge=1, description="of each arm's base; its adapter gets a tenth of them")
    households: int | None = Field(200, ge=1, description="households judged, chosen by hash; none = all")

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        from sigma_core.benchmarks.arms import chosen_arms  # the table of arms is made of settings

        chosen_arms(arms)
        return arms
