"""Answers: item index, user-to-item lists, and the engine that loads a day of a root."""
