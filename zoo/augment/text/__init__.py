"""Augmentation of text: token ids and characters."""
