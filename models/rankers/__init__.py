"""Downstream rankers: predictions for a pair, from features and published embeddings."""
