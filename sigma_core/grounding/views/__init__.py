"""The views relevance pairs come from, one module each; `base.py` says what a view is given and what it returns."""
