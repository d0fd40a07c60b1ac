"""Builds the sandbox: a miniature world that is trained for real and on which every stage runs."""
