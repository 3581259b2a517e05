"""Benchmarks that start the pipeline's own commands."""
