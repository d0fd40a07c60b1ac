"""The sandbox's tasks: a miniature world in which every answer can be checked exactly."""
