"""Id tables: users and Pins from their ids alone, and what they did together."""
