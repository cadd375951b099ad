"""Days that were corrupted or must begin anew: planned, recomputed, published once."""
