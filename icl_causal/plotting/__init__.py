"""Figures of runs and analyses: arrays in, matplotlib Figure out."""
