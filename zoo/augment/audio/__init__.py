"""Augmentation of sound: waveforms and spectrograms."""
