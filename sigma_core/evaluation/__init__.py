"""How a day is judged: metrics, tests over users, informed baselines, the protocol that runs them, and the report."""
