"""The ablation of a month as an artifact: one JSON value, and what is made from it: Markdown, plots, summary. Computes nothing.

The value is that of `sigma benchmark ablation` without the record of its run: no times, so that equal content has an equal digest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from sigma_core.artifacts import digest_json, read_json, write_bytes, write_json

REPORT_JSON: Final = "ablation.json"
REPORT_MARKDOWN: Final = "ablation.md"
DIFFERENCES_PLOT: Final = "differences.png"
FRONTIER_PLOT: Final = "frontier.png"
MAIN: Final = "recall@20"
PICTURES: Final = {
    "Differences": DIFFERENCES_PLOT,
    "Accuracy and diversity: APF and fixed temperatures": FRONTIER_PLOT,
}
"""Title of each picture -> its file."""
REPORT_FILES: Final = {
    "json": REPORT_JSON,
    "report": REPORT_MARKDOWN,
    "differences": DIFFERENCES_PLOT,
    "frontier": FRONTIER_PLOT,
}
_TIMES: Final = frozenset({"seconds", "tokens_per_second", "seconds_a_step"})


def write_report(values: Mapping[str, Any], markdown: Path, pictures: Mapping[str, Path]) -> None:
    """Write the Markdown and the pictures of `PICTURES`, which are given by title and lie in its folder."""
    from sigma_core.benchmarks.ablation_plots import difference_png, frontier_png
    from sigma_core.benchmarks.ablation_text import ablation_markdown

    drawn = difference_png(values["tasks"], values["differences"]), frontier_png(values)
    for png, title in zip(drawn, PICTURES, strict=True):
        write_bytes(pictures[title], png)
    markdown.write_text(ablation_markdown(values, {title: pictures[title].name for title in PICTURES}))


@dataclass(frozen=True)
class AblationReport:
    """`dates`, `seeds`, `settings`, `arms` {arm: {task: {metric: {mean, low, high}}}}, `differences` alike, and the rest."""

    values: dict[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The report of an ablation's values; how long things took is left out."""
        settings = {name: value for name, value in values["settings"].items() if name not in _TIMES}
        training = {
            arm: [{name: value for name, value in run.items() if name not in _TIMES} for run in runs]
            for arm, runs in values["training"].items()
        }
        return cls({**values, "settings": settings, "training": training})

    def save(self, directory: Path) -> None:
        """Write `ablation.json`, `ablation.md`, `differences.png`, `frontier.png`."""
        write_json(directory / REPORT_JSON, self.values)
        pictures = {title: directory / file for title, file in PICTURES.items()}
        write_report(self.values, directory / REPORT_MARKDOWN, pictures)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back `ablation.json`."""
        return cls(read_json(directory / REPORT_JSON))

    def digest(self) -> str:
        """Digest of the JSON value; it holds no time and no path."""
        return digest_json(self.values)

    def summary(self) -> dict[str, Any]:
        """Dates, seeds, steps, households, what was left out, and recall@20 by task and arm."""
        settings = self.values["settings"]
        recall = {
            task: {
                arm: tasks[task][MAIN]["mean"] for arm, tasks in self.values["arms"].items() if task in tasks
            }
            for task in self.values["tasks"]
        }
        return {
            "dates": self.values["dates"],
            "seeds": self.values["seeds"],
            "steps": settings["steps"],
            "households": settings["households"],
            "skipped": self.values["skipped"],
            MAIN: recall,
        }
