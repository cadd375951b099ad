"""Delta tables by name and day: layout, staging, storage, retention."""
