"""The arithmetic of pools: dedup, merge, prune, stability."""
