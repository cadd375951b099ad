"""PinnerFormer: users from what they did, Pins from their content."""
