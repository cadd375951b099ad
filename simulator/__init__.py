"""A synthetic world of users, Pins and advertisers with its ground truth kept."""
