"""What `derm` offers beside the steps."""
