"""Accuracy by leave-one-out over sequences: SIGMA and its opponents in one harness, under two protocols.

`data` reads the folder, `ranks` measures, `trainer` fits the learned models, `models` names all of them, `run` puts the
protocols together. Everything is a pure function of folder, profile and seed. Source: the benchmark's own definition
(docstring of `run`); the paper's data is private, so none of its figures can be compared with these.
"""
