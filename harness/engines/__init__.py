"""Engines: lm-eval models that answer requests and write every answer to the store the moment it exists."""
