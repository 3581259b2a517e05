"""Tests of sigma_core.data."""
