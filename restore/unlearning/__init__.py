"""Steps that unlearn, and walks along a given path, inside the same bound."""
