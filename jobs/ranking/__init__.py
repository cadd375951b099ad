"""What the steps of rankers share: what they read, how they are scored and trained."""
