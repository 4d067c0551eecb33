"""One file for each format that is read: how it is opened, and what it says its samples mean."""
