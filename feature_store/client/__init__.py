"""What a ranker or a notebook imports."""
