"""Declarations that every layer shares. Needs pydantic and the standard library, nothing else."""
