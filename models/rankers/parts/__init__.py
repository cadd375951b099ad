"""What rankers are put together from: inputs, blocks of features, vectors from pools."""
