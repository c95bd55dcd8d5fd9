"""Array mathematics without policy: functions on the last axis of whole (series, points) arrays."""
