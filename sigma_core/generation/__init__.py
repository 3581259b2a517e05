"""Three-step generation: prefix beam, search inside prefixes, adaptive probabilistic fusion."""
