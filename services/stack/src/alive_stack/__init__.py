"""Runs the whole system on one host."""
