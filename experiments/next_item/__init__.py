"""The next item of a user, by the protocol that publications share."""
