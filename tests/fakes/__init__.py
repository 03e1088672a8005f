"""Pretend outsiders on the loopback: deterministic, with books of their own."""
