"""One ranker for all surfaces: a shared trunk, a tree for each surface, calibrated apart."""
