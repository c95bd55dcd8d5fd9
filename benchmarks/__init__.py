"""Benchmarks: speed and accuracy, with the peers in the same run on the same data."""
