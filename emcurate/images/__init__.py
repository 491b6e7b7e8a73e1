"""Images in two dimensions: reading any of them as grey, the one rule to uint8, and sections on disk."""
