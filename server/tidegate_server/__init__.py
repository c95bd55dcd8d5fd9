"""The Tidegate service: asks, waits, judges, remembers, answers."""
