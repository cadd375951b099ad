"""How fast rankers learn and score."""
