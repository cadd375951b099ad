"""Data sets: each module brings one of them into the declared tables."""
