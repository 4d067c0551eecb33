"""EXIF and XMP: read, turned upright, corrected for the new size, and put into each format that is written."""
