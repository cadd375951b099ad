"""Training on sequences: tokens per second, and the memory of its loss."""
