"""Online experiments that are played: auctions are held, outcomes come from the truth."""
