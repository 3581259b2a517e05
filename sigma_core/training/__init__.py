"""Supervised fine-tuning: batches, the base model of a month, the adapter of a day, their artifacts."""
