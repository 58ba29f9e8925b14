"""Measurements behind the documented numbers."""
