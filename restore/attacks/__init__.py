"""Attacks on finished models, as measurements: a suffix that a white-box attacker optimises."""
