"""Services that run beside the pipeline when the user has none: started, found again, stopped."""
