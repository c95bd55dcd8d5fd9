"""The wire contract of Tidegate."""
