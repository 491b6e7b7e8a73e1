"""Volumes: a lazy handle for every format, their grey limits, and the sections and boxes cut from them."""
