"""Tasks: lm-eval YAML files, the functions that they call, and the data sets with their splits."""
