"""One key-value protocol, three stores: memory, Redis, files."""
