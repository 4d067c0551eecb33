"""The run of `realesr upscale`: its inputs, names, claims, manifest and reports."""
