"""The modelling library of SIGMA: grounding, tokenization, instruction tuning, three-step generation.

It never imports dagster, wandb or great_expectations, and does nothing at import: open it in a notebook.
"""

__version__ = "0.1.0"
