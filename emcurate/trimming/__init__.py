"""Trimming COCO and SIIM-ISIC: their annotations and tables, the selections, and pictures of the balance."""
