"""What models read: examples of a day, counts as of the day before."""
