"""A market: worlds with organic Pins, requests, bids and budgets, offsite items, long histories."""
