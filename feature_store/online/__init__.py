"""The online store: slots, releases, keys and values."""
