"""Addresses of files on the web: which can be fetched, and which lead to a page that only a browser gets through."""

from urllib.parse import urlsplit

PAGE_HOSTS = (
    *("1drv.ms", "docs.google.com", "drive.google.com", "dropbox.com", "gofile.io", "icedrive.net", "mediafire.com"),
    *("mega.co.nz", "mega.nz", "onedrive.live.com", "pcloud.link", "pixeldrain.com", "sharepoint.com", "yandex.com"),
)
"""Hosts of files whose addresses lead to pages with a button."""

_CODE_HOSTS = ("github.com", "huggingface.co")
_PAGES_OF_CODE_HOSTS = ("/blob/", "/tree/", "/releases/tag/")
_MOST_CHARACTERS = 4096


def is_web_address(url: str) -> bool:
    """Return whether a text is an address of http or https, in printable characters and without a password."""
    if not url.isprintable() or " " in url or len(url) > _MOST_CHARACTERS:
        return False
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:
        return False


def leads_to_file(url: str) -> bool:
    """Return whether an address leads to the file itself, not to a page of a file host."""
    if not is_web_address(url):
        return False
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if any(host == page or host.endswith(f".{page}") for page in PAGE_HOSTS):
        return False
    return host not in _CODE_HOSTS or not any(part in parts.path for part in _PAGES_OF_CODE_HOSTS)
