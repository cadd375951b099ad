"""Steps, artifacts and manifests: what runs a step of a day, and knows whether it is current."""
