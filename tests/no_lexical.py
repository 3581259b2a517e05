"""What a fake text encoder needs beside its rows: no hashed words."""

import numpy as np

from sigma_core.grounding.lexical import LexicalHash, no_lexical


class MeaningAlone:
    """Base of fake encoders: match vectors are the rows of `encode`."""

    lexical: LexicalHash = no_lexical()

    def match_vectors(self, texts: list[str], *, few: bool = False) -> np.ndarray:
        return self.encode(texts)
