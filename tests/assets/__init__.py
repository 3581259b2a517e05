"""Tests of the Dagster side: planning, roots, ingestion, IO, publishing, the command line."""
