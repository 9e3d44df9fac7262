"""Which tokens, sequences and tasks are learned when, across sizes."""
