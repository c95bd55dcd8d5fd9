"""Monitors: what they are, the query language that finds them, and what a monitor rule makes of their
states."""
