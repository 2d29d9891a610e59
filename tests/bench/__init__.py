"""Ours and what a user would pick instead, on the same work, in turn: `make bench`."""
