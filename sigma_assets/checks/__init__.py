"""Checks: data contracts and what they need to know of an artifact."""
