"""Benchmarks of vectors of graphs."""
