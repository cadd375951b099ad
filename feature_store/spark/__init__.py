"""The parts of the feature store that run on Spark."""
