"""The domain: gates, rules, evaluations and how verdicts fold. Pure: no clock, no store, no wire."""
