"""Everything that a run keeps, by digests of what decides it."""
