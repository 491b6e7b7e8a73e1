"""Selecting patches that differ: clusters of clusters of features, near-duplicates in them, an even draw from them."""
