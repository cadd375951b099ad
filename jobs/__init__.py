"""One module per step; the only layer that reads environment, clock and command line."""
