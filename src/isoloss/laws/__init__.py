"""Arrays in, a law with its uncertainty out: no files, no models, no network."""
