"""Chores of the repository: the catalog's index, parity with references, weights' records."""
