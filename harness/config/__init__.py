"""A run as it is written down: read, checked all at once, and made into settings and rows."""
