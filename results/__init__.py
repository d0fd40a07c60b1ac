"""Numbers and how they are shown. Knows nothing of torch."""
