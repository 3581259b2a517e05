"""Tests of sigma_core.instruction."""
