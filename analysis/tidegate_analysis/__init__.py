"""Statistics of deployment gates: arrays in, findings out."""
