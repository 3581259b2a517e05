"""Benchmarks that need the pipeline: a module a verb of `sigma benchmark`. They work on a copy of a root."""
