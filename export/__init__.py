"""Export of networks to other programs: nothing in this version."""
