"""What rankers gain from embeddings: worlds with vectors, pools of them, rankers over the pools."""
