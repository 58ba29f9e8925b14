"""Augmentation of images: values, places, policies, mixtures."""
