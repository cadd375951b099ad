"""SASRec: the next item from the items before it; for comparisons, it publishes nothing."""
