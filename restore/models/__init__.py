"""Models, adapters and checkpoints: loaded, prepared, and read and written as one vector."""
