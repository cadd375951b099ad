"""Experiments on the simulated world: what a choice of the design changes, with its uncertainty."""
