"""Pages of the geometry commands: tables and charts of losses, correlations and landscapes."""
