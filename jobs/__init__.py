"""One module per step, named by a verb; the only layer that reads environment, clock and arguments."""
