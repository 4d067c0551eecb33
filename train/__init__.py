"""Training of networks: nothing in this version."""
