"""What outlives a run: contracts, lake, aggregation, online store, Pin index, client."""
