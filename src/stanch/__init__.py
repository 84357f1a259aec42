"""Stanch: an open threat-response system for Linux fleets."""

__version__ = "0.1.0"
