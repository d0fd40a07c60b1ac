"""Training loops and what fine-tuning methods put into them."""
