"""Bringing files here: downloads, the Hugging Face Hub, archives that are not trusted, and gathering chosen images."""
