"""Served id tables: quantised rows in shards, versions that never mix, and who serves them."""
