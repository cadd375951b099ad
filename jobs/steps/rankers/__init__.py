"""What the steps of rankers share."""
