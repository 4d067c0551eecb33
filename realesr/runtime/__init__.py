"""Rows of pixels through an open engine: bands, tiles, strips, alpha, resizing, one file into another."""
