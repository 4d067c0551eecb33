"""Runs networks with convolutions of realesr's own on the CPU."""
