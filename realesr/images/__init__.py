"""Files and pixels: formats, what a file says its samples mean, colour, metadata, writing. Knows no network."""
