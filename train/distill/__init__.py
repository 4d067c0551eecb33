"""Teaches a small network what a large one does: the teacher answers patches once, and two stages learn from that."""
