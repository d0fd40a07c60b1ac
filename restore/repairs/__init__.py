"""Closed-form changes of a fine-tuned adapter: no steps, and the result is an adapter again."""
