"""Plan -> pending -> done: what a study runs, where, and in which order."""
