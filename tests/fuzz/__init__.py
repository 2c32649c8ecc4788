"""Hostile lines, and half sensible ones, for both ports: made from the table of verbs, and judged."""
