"""This computer: its processor, memory and containers, and files that are written whole."""
