"""Where the numbers in docs/ come from: a folder per subject, one harness.

Run from the root of the repository:

    python -m benchmarks.pipeline.merge --json merge.json
"""
