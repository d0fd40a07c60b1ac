"""What the terminal shows of plans and of progress, and what it is spared."""
