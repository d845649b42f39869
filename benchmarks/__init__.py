"""Measurements of the product that are too long for the tests."""
