"""Array mathematics without policy: every function works on the last axis of whole (series, points) arrays."""
