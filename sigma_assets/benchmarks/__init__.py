"""Benchmarks that need the pipeline: roots are read, arms and days trained and judged. The verbs are in `cli_benchmark_*.py`."""
