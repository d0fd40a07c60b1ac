"""What can be typed: every command of `safebasin`, and the models that it registers with lm-eval."""
