"""Patches as others read them: what each format looks like, and writing it piece by piece."""
