"""PinnerSage: a user as a few of the Pins they acted on; for comparisons, it publishes nothing."""
