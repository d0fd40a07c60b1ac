"""safebasin."""
