"""Scores of images: NIQE without a reference; PSNR, SSIM and LPIPS against one. Knows no network that enlarges."""
