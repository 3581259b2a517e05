"""The whole pipeline on a tiny slice."""
