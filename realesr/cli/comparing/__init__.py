"""The run of `realesr compare`: its page and its picture."""
