"""What fine-tuning leaves of a model's loss: per-example correlations, and landscapes around the weights."""
