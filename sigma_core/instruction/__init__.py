"""Instruction: the tasks, their wordings, their targets, dated examples and shards. No model here."""
