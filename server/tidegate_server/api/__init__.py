"""The wire: messages to domain objects and back. Translation only; no statistics, no state."""
