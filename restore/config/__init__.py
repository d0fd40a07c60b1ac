"""Settings of training and of the restoration: defaults, presets, checks."""
