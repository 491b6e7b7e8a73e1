"""What two or more stages of emcurate share; one noun a module."""

__version__ = "0.1.0"
