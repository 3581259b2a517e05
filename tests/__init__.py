"""Tests of SIGMA; the folders mirror the packages."""
