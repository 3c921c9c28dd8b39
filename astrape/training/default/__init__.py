"""The voice that ships, from nothing: corpus, caches, training, weights."""
