"""Safety alignment of a base that has none: refusals, refusals begun late, and answers to keep."""
