"""Mutations of the core, each with the tests that must notice it; ``make mutations`` tries all of them."""
