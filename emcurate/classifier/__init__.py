"""The classifier of patch quality: its network, training, scoring, and what tells how good it is."""
