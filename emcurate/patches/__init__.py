"""Patches: their hashes, near-duplicates, datasets, labels, and lists of their paths."""
