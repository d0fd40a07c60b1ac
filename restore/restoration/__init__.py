"""The curvature-aware restoration: data, aim, influence updates, stop."""
