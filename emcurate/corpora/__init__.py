"""Directories of inputs: what lies in them, and what would come of it."""
