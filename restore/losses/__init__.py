"""Losses in nats per token as functions of the parameters, with their gradients."""
