"""TransRA: vectors of the nodes of a graph, by translation between relations."""
