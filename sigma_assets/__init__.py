"""The Dagster side of SIGMA: assets, checks, planning, and the command line. Modelling lives in `sigma_core`."""
