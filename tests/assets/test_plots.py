"""Pictures of asset metadata: which there are, from a summary alone."""

from typing import Any, cast

from sigma_assets.plots import plot_of

TITLES = ("recall@20 of held-out pairs", "share of training pairs", "contrastive loss of each view")


class Summary:
    """An artifact of which only the summary is known."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def summary(self) -> dict[str, Any]:
        return self.values


def test_the_encoders_picture_says_what_each_view_gave_and_gained() -> None:
    recall = {
        "recall@20_before": {"search": 0.1, "visual": None},
        "recall@20_after": {"search": 0.4, "visual": None},
    }
    by_view = {
        "train_share": {"search": 1.0},
        "contrastive_by_view_first": {"search": 3.0},
        "contrastive_by_view_last": {"search": 2.0},
    }
    drawn = plot_of("grounded_encoder", cast(Any, Summary(**recall, **by_view)))
    assert drawn is not None
    assert all(f"![{title}](data:image/png;base64," in drawn for title in TITLES)
    frozen = {"recall@20_frozen": {"search": 0.2, "visual": None}}
    assert plot_of("grounded_encoder", cast(Any, Summary(**recall, **by_view, **frozen))) not in (None, drawn)
    alone = plot_of("grounded_encoder", cast(Any, Summary(**recall)))  # a summary of an older release
    assert alone is not None
    assert [title in alone for title in TITLES] == [True, False, False]
    assert plot_of("grounded_encoder", cast(Any, Summary())) is None
