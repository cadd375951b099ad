"""Benchmarks of rankers."""
