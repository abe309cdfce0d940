"""The version of mmdiffkd."""

__version__ = '0.1.0'
