"""Augmentation of rows of numbers."""
