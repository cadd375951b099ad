"""What tables of ids are worth to a ranker, by how they were made and what became of them."""
