"""Small pictures for asset metadata: one function an asset that has something to see. Returns Markdown with an inline PNG.

A picture is an ornament: it reads only what the artifact's summary holds. Our choice.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sigma_core.artifacts import Artifact

_SIZE: Final = (4.6, 2.4)  # inches, at 90 dpi: fits a metadata row


def plot_of(asset: str, value: Artifact) -> str | None:
    """The asset's picture as Markdown, or None where it has none or nothing to draw."""
    draw = _PLOTS.get(asset)
    return None if draw is None else draw(value.summary())


def bars(title: str, names: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Grouped bars, one group a name and one colour a series."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=90, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(series), 1)
    for number, (label, heights) in enumerate(series.items()):
        left = [place + number * width for place in range(len(names))]
        drawn = axes.bar(left, list(heights), width=width, label=label)
        axes.bar_label(drawn, fmt="{:.3g}", fontsize=6)  # bars of nearly one height can be told apart
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(names))], names, fontsize=7)
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    if len(series) > 1:
        figure.legend(fontsize=7, loc="outside lower center", ncols=len(series), frameon=False)
    return _markdown(figure, title)


def _markdown(figure: Any, title: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return inline_png(buffer.getvalue(), title)


def inline_png(png: bytes, title: str) -> str:
    """Markdown that shows the picture."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _encoder(summary: Mapping[str, Any]) -> str | None:
    before, after = summary.get("recall@20_before"), summary.get("recall@20_after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    views = [view for view in before if view in after]
    frozen = summary.get("recall@20_frozen")  # none in a summary of an older release
    whole = {"untouched": [frozen.get(v) or 0 for v in views]} if isinstance(frozen, dict) else {}
    parts = {"cut to text_dim": before, "grounded": after}
    series = whole | {name: [recall[v] or 0 for v in views] for name, recall in parts.items()}
    recall = bars("recall@20 of held-out pairs", views, series)
    share, first, last = (
        summary.get(key) for key in ("train_share", "contrastive_by_view_first", "contrastive_by_view_last")
    )
    if not (isinstance(share, dict) and isinstance(first, dict) and isinstance(last, dict)):
        return recall
    losses = {
        "first steps": [first.get(v, 0.0) for v in views],
        "last steps": [last.get(v, 0.0) for v in views],
    }
    pairs = bars("share of training pairs", views, {"share": [share.get(v, 0.0) for v in views]})
    return f"{recall}\n\n{pairs}\n\n{bars('contrastive loss of each view', views, losses)}"


def _codebooks(summary: Mapping[str, Any]) -> str | None:
    entropy = summary.get("entropy_bits")
    if not isinstance(entropy, list):
        return None
    names = [f"level {level}" for level in range(len(entropy))]
    picture = bars("entropy of each level's codes, bits", names, {"bits": entropy})
    shares = {
        "level 0 in use": "usage", "variance told": "explained", "pure prefixes": "prefix_purity",
        "texts that collide": "distinct_collision_rate", "prefix moved": "prefix_changed_share",
    }  # fmt: skip
    figures = {name: summary.get(key) for name, key in shares.items()}
    figures["level 0 in use"] = summary["usage"][0] if summary.get("usage") else None
    known = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return (
        f"{picture}\n\n{bars('codebook health, shares', list(known), {'share': list(known.values())})}"
        if known
        else picture
    )


def _losses(summary: Mapping[str, Any]) -> str | None:
    parts = {name: summary[name] for name in ("base_loss", "probe_loss") if name in summary}
    if not parts:
        return None
    return bars("loss on held-out users", ["before", "after"][: len(parts)], {"loss": list(parts.values())})


def _ablation(summary: Mapping[str, Any]) -> str | None:
    recall = summary.get("recall@20") or {}
    if not recall:
        return None
    arms = list(dict.fromkeys(arm for by_arm in recall.values() for arm in by_arm))
    heights = {task: [by_arm.get(arm) or 0 for arm in arms] for task, by_arm in list(recall.items())[:3]}
    return bars("recall@20 of each arm", arms, heights)


_PLOTS: Final[dict[str, Callable[[Mapping[str, Any]], str | None]]] = {
    "grounded_encoder": _encoder,
    "codebooks": _codebooks,
    "sigma_base": _losses,
    "lora_checkpoint": _losses,
    "ablation_report": _ablation,
}
