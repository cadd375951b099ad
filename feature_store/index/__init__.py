"""The Pin index."""
