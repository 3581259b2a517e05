"""What `sigma benchmark` runs: one module a verb, and the record every verb writes.

A verb's `run(...)` returns its results as JSON values; `record.py` adds what anyone needs to judge and repeat them.
Nothing of the pipeline imports this package. The command line is in `sigma_assets/cli_benchmark*.py`.
"""
