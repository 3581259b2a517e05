"""The HTTP API over a loaded day: schemas, security, micro-batching, routes. Imports no dagster."""
