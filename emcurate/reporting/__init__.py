"""What a run of all stages leaves for those who use its results: an account of every patch, and a datasheet."""
