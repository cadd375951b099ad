"""Graphs that everybody measures on: split, trained, ranked."""
