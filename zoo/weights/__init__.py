"""Weights: fetched, verified, read, renamed, checked on both sides; and written back."""
