"""The labelling widget: a session (`session`), what it keeps on disk (`store`, `log`), how it is drawn (`widget`)."""
