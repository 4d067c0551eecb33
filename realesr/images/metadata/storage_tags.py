"""Tells fields that say how a TIFF file's own pixels are stored from those that say something about the photo.

Everything that is not listed here is taken to be about the photo, but for private fields of offsets: those would point
at nothing in another file.

Source of the tags: TIFF 6.0; TIFF/EP; DNG 1.7; JPEG XR (ITU-T T.832, annex A); the Library of Congress' list of tags.
"""

from realesr.images.metadata.tiff_fields import IFD, IFD8, LONG, LONG8, Entry

IMAGE_WIDTH, IMAGE_LENGTH, IMAGE_DESCRIPTION = 0x0100, 0x0101, 0x010E

COLOUR_OF_STORED = frozenset((301, 318, 319, 529, 531, 532))
"""Transfer function, white point, primaries, YCbCr and reference black: legal in an EXIF block, and true of a TIFF
file's own values only."""

GEO_TAGS = frozenset((33550, 33920, 33922, 34264, 34735, 34736, 34737, 50844))
"""Where pixels lie on the Earth: GeoTIFF's scale, tie points, transformations and keys, and rational polynomials."""

_SIZE_AND_FORM = frozenset((254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 277, 278, 279, 273, 280, 281, 284))
_MORE_STORAGE = frozenset((286, 287, 288, 289, 290, 291, 292, 293, 297, 300, 317, 320, 321, 322, 323, 324, 325))
_FAX_AND_INKS = frozenset((326, 327, 328, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347))
_LATER = frozenset((351, 400, 401, 402, 403, 404, 405, 433, 434, 435, *range(512, 522), 530, 559, 700, 32781))
_OF_PROGRAMS = frozenset(
    (
        *(
            32932,
            32953,
            32995,
            32996,
            32997,
            32998,
            33300,
            33301,
            33302,
            33303,
            33304,
            33305,
            33306,
        ),  # Wang, SGI, Pixar
        *(33421, 33422, 33723, 33918, 33919),  # CFA; IPTC; Intergraph
        *range(33445, 33453),  # Molecular Dynamics: scale of the values
        *range(33628, 33632),  # MetaMorph: planes
        *range(34016, 34034),  # IT8 separations
        *(34118, 34361, 34362, 34363, 34377, 34386, 34412, 34675, 34680, 34682),  # microscopes; Photoshop; ICC profile
        *(37724, 50838, 50839),  # Photoshop's layers; ImageJ's planes
        *range(0xBC00, 0xBD00),  # JPEG XR
        *range(50706, 50742),  # DNG: version, matrices, levels and private data of the raw image
        *range(50778, 50782),
        *range(50827, 50835),
        *range(50879, 50882),
        *range(50931, 50983),
        *range(51008, 51126),
        *range(51157, 51183),
        *range(52525, 52600),
        *range(65420, 65500),  # NDPI
    )
)
_STORAGE = _SIZE_AND_FORM | _MORE_STORAGE | _FAX_AND_INKS | _LATER | _OF_PROGRAMS
_POINTERS = frozenset((0x8769, 0x8825, 0xA005))
_LONGS_ABOUT_PHOTOS = frozenset((*range(34864, 34870), 37393, 0xA002, 0xA003))
_FIRST_PRIVATE_TAG, _UTF_8 = 32768, 129
_MOST_PRIVATE_BYTES = 2**20


def is_about_storage(entry: Entry) -> bool:
    """Return whether an entry of a TIFF file's first directory, pointers included, must not go into another file."""
    if entry.tag in _STORAGE or entry.tag in COLOUR_OF_STORED or entry.tag in _POINTERS or entry.kind in (IFD, IFD8):
        return True
    if entry.tag < _FIRST_PRIVATE_TAG:
        return False
    is_offset = entry.kind in (LONG, LONG8) and entry.tag not in _LONGS_ABOUT_PHOTOS
    return is_offset or entry.kind not in (*range(1, 13), _UTF_8) or entry.size > _MOST_PRIVATE_BYTES


def is_false_in_block(entry: Entry) -> bool:
    """Return whether an entry of an EXIF block's first directory says how pixels were stored that are no more."""
    sizes = (IMAGE_WIDTH, IMAGE_LENGTH)
    return (entry.tag in _STORAGE and entry.tag not in sizes) or (entry.kind in (IFD, IFD8) and entry.tag < 0x8769)
