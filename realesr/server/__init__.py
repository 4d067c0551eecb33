"""A page and an HTTP API: `realesr serve`. The server process decodes no image and runs no network."""
