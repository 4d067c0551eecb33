"""Makes LR images from HR images: a degradation is drawn, then applied."""
