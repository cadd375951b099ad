"""One module per step of a day, its helpers beside it."""
