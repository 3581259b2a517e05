"""A/B tests: who gets which policy, what was shown and taken, and what may be concluded. No model, no files of a root."""
