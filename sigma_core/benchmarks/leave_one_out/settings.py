"""The benchmark's one profile: every number of every model, the same for every dataset.

Frozen, unknown keys refused. Numbers were chosen on validation items, never on test items. Our choice.
"""

from pydantic import Field

from sigma_core.config_sections import Section


class Training(Section):
    """How a network is trained."""

    learning_rate: float = Field(2e-3, gt=0, description="Adam's, constant after a short warm-up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's")
    positions_at_once: int = Field(2000, ge=1, description="padded positions of a batch")
    max_length: int = Field(50, ge=2, description="items of a history that are read")
    max_epochs: int = Field(30, ge=1, description="at most so many")
    patience: int = Field(2, ge=1, description="epochs without a better validation NDCG@10 before stopping")
    validation_users: int = Field(6000, ge=1, description="users that decide epochs and weights, drawn once")
    average: float = Field(0.99, ge=0, lt=1, description="decay of the moving average of the weights, a step")


class TrunkShape(Section):
    """Size and dropout of a sequence tower."""

    width: int = Field(64, ge=2, description="of item vectors and states")
    blocks: int = Field(2, ge=1, description="transformer blocks")
    heads: int = Field(2, ge=1, description="attention heads")
    drop: float = Field(0.3, ge=0, lt=1, description="dropout within blocks")
    input_drop: float = Field(0.3, ge=0, lt=1, description="dropout of item vectors as input")
    temperature: float = Field(0.07, gt=0, description="of cosines, before training")


class Features(Section):
    """Fixed vectors of items."""

    text_dim: int = Field(96, ge=2, description="principal components of the texts' MiniLM vectors")
    category_dim: int = Field(64, ge=2, description="principal components of the category labels")
    together_dim: int = Field(128, ge=2, description="width of the co-occurrence vectors")


class Counting(Section):
    """Item-kNN and EASE: what validation chooses from, every combination."""

    knn_neighbors: tuple[int, ...] = Field((50, 100, 200, 400), description="neighbours an item keeps")
    ease_l2: tuple[float, ...] = Field((5.0, 20.0, 80.0, 320.0), description="ridge of EASE")
    decay: tuple[float, ...] = Field(
        (0.5, 0.7, 0.9, 1.0), description="weight of an item one place further back"
    )


class Sigma(Section):
    """SIGMA's own numbers."""

    num_prefixes: int = Field(256, ge=2, description="prefix codes")
    max_group_ratio: float = Field(2.0, gt=1, description="largest prefix group over the mean one, at most")
    collaborative_weight: float = Field(
        1.0, ge=0, description="co-occurrence beside text in the space of prefixes"
    )
    prefix_mass: float = Field(
        0.98, gt=0, le=1, description="probability that the searched prefixes hold together"
    )
    catalog_share: float = Field(
        1.0, gt=0, le=1, description="share of positions with the catalogue-wide loss"
    )
    steps_weight: float = Field(
        0.3, ge=0, description="of the prefix and in-prefix losses, beside the catalogue-wide loss at 1"
    )
    sigma_top: int = Field(20, ge=2, description="beam scores whose standard deviation APF takes")
    sigma_floor: float = Field(1e-4, gt=0, description="least sigma")
    sharpness_bound: float = Field(
        1.5, ge=1, description="APF's sharpness against a typical request, at most"
    )


class BeamSearch(Section):
    """GR (SID)."""

    num_levels: int = Field(4, ge=2, description="codes of an item")
    codebook_size: int = Field(256, ge=2, description="entries of a level")
    width: int = Field(50, ge=1, description="beams")


class Profile(Section):
    """Everything."""

    training: Training = Training()
    trunk: TrunkShape = TrunkShape()
    features: Features = Features()
    counting: Counting = Counting()
    sigma: Sigma = Sigma()
    beam_search: BeamSearch = BeamSearch()
