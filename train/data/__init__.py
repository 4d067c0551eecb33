"""Turns image files into batches of crops."""
