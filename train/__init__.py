"""Trains Real-ESRGAN's networks: degraded photos and given pairs, two stages, recipes, checkpoints."""
