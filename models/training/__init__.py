"""The loop, checkpoints, determinism, distribution."""
