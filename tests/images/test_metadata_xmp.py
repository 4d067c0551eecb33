"""XMP that stays true: what is corrected, what is taken out, what stays; read back by Python's XML parser."""

import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from realesr.images.info import ImageInfo
from realesr.images.metadata.output_metadata import enlarged_info
from realesr.images.metadata.xmp import xmp_resized, xmp_upright

from .image_files import XMP

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GImage": "http://ns.google.com/photos/1.0/image/",
    "GAudio": "http://ns.google.com/photos/1.0/audio/",
    "Device": "http://ns.google.com/photos/dd/1.0/device/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "drone-dji": "http://www.dji.com/drone-dji/1.0/",
}


def packet(attributes: str = "", elements: str = "", renamed: dict[str, str] | None = None) -> bytes:
    """Return a packet of one description, with every prefix declared, under another name where `renamed` has one."""
    declared = " ".join(f'xmlns:{(renamed or {}).get(prefix, prefix)}="{uri}"' for prefix, uri in NAMESPACES.items())
    return (
        f'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><!-- <tiff:ImageWidth>60</tiff:ImageWidth> -->\n'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="" {declared} xmp:Rating="4" {attributes}>'
        f'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">&lt;60 &gt; 40&#33;</rdf:li></rdf:Alt></dc:title>'
        f'{elements}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()  # fmt: skip


def resized(xmp: bytes) -> bytes:
    result, _ = xmp_resized(xmp, (60, 40), (240, 160))
    assert result is not None
    ET.fromstring(result)
    return result


CORRECTED = [
    ("tiff:ImageWidth", "60", "240"),
    ("tiff:ImageLength", "40", "160"),
    ("exif:PixelXDimension", "60", "240"),
    ("exif:PixelYDimension", "40", "160"),
    ("exif:FocalPlaneXResolution", "1000/3", "4000/3"),
    ("GPano:FullPanoWidthPixels", "100", "400"),
    ("GPano:FullPanoHeightPixels", "50", "200"),
    ("GPano:CroppedAreaImageWidthPixels", "60", "240"),
    ("GPano:CroppedAreaImageHeightPixels", "40", "160"),
    ("GPano:CroppedAreaLeftPixels", "11", "44"),
    ("GPano:CroppedAreaTopPixels", "0", "0"),
    ("GPano:LargestValidInteriorRectWidth", "50", "200"),
    ("drone-dji:CalibratedFocalLength", "3666.666504", "14666.666016"),
]


@pytest.mark.parametrize(("name", "before", "after"), CORRECTED)
def test_properties_in_pixels_are_corrected_in_both_forms(name: str, before: str, after: str) -> None:
    for quote in "\"'":
        attribute = f"{name} = {quote}{before}{quote}"
        assert resized(packet(attribute)) == packet(attribute.replace(before, after))
    assert resized(packet(elements=f"<{name}>{before}</{name} >")) == packet(elements=f"<{name}>{after}</{name} >")


@pytest.mark.parametrize(
    "name",
    [
        "xmp:Thumbnails", "xmpNote:HasExtendedXMP", "hdrgm:Version", "hdrgm:GainMapMax", "HDRGainMap:HDRGainMapVersion",
        "GCamera:MicroVideo", "GCamera:MicroVideoOffset", "GCamera:MotionPhoto",
        "GCamera:MotionPhotoPresentationTimestampUs", "Container:Directory", "GDepth:Data", "GDepth:Near",
        "GImage:Data", "GAudio:Data", "Device:Container", "exif:SubjectArea", "tiff:Compression",
    ],
)  # fmt: skip
def test_properties_about_parts_that_are_gone_are_taken_out(name: str) -> None:
    assert resized(packet(f'{name}="1" crs:Version="9"')) == packet('crs:Version="9"').replace(b"  crs", b" crs")
    inside = '<rdf:Seq><rdf:li rdf:parseType="Resource"><Item:Mime>video/mp4</Item:Mime></rdf:li></rdf:Seq>'
    for element in (
        f"<{name}>1</{name}>",
        f"<{name}/>",
        f"<{name}>{inside}</{name}>",
        f"<{name}>\n<!-- > -->1</{name}\n>",
    ):
        assert resized(packet(elements=element)) == packet()


def test_a_prefix_means_what_the_packet_says() -> None:
    attributes = 't:ImageWidth="60" tiff:ImageWidth="60"'
    xmp = packet(attributes, renamed={"tiff": "t"}).replace(b" xmp:Rating", b' xmlns:tiff="urn:other" xmp:Rating')
    assert resized(xmp) == xmp.replace(b't:ImageWidth="60" ', b't:ImageWidth="240" ')


def test_an_inner_declaration_ends_with_its_element() -> None:
    elements = '<a:b xmlns:a="urn:a" xmlns:tiff="urn:x"><tiff:ImageWidth>60</tiff:ImageWidth></a:b>'
    after = "<tiff:ImageWidth>{}</tiff:ImageWidth>"
    assert resized(packet(elements=elements + after.format(60))) == packet(elements=elements + after.format(240))


def test_everything_else_stays_byte_for_byte() -> None:
    relative = (
        'crs:CropLeft="0.1" GCamera:SpecialTypeID="x" GPano:PoseHeadingDegrees="60" GPano:ProjectionType="cylindrical"'
    )
    regions = (
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="60" stDim:h="40" '
        'stDim:unit="pixel"/><mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description mwg-rs:Name="Ann">'
        '<mwg-rs:Area stArea:x="0.5" stArea:y="0.25" stArea:w="0.2" stArea:h="0.1" stArea:unit="normalized"/>'
        "</rdf:Description></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
    )
    result = resized(packet(relative, regions))
    assert result == packet(relative, regions.replace('w="60" stDim:h="40"', 'w="240" stDim:h="160"'))


def test_a_size_in_another_unit_stays() -> None:
    elements = '<mwg-rs:AppliedToDimensions stDim:w="60" stDim:h="40" stDim:unit="inch"/>'
    assert resized(packet(elements=elements)) == packet(elements=elements)


def test_what_is_lost_is_told() -> None:
    _, notices = xmp_resized(packet('GCamera:MotionPhoto="1" hdrgm:Version="1.0"'), (60, 40), (240, 160))
    assert len(notices) == 1
    assert "video" in notices[0]
    assert "gain map" in notices[0]
    assert xmp_resized(packet('tiff:ImageWidth="60"'), (60, 40), (240, 160))[1] == ()


def test_the_media_type_is_that_of_the_new_file() -> None:
    info = ImageInfo(width_px=60, height_px=40, bits=8, is_grey=False, has_alpha=False, format="jpeg")
    xmp = packet(elements="<dc:format>image/jpeg</dc:format>")
    changed, _ = enlarged_info(replace(info, xmp=xmp), 240, 160, "png")
    assert changed.xmp == packet(elements="<dc:format>image/png</dc:format>")


UNREADABLE = [
    b"<a tiff:ImageWidth='60'>",
    b"<a><tiff:ImageWidth>60</tiff:ImageWidth></b>",
    b"<a tiff:ImageWidth='60' b></a>",
    b"<tiff:ImageWidth>60</tiff:ImageWidth><!--",
    '<tiff:ImageWidth xmlns:tiff="http://ns.adobe.com/tiff/1.0/">60</tiff:ImageWidth>'.encode("utf-16"),
    b"<!DOCTYPE a [<!ENTITY b 'c'>]><tiff:ImageWidth>60</tiff:ImageWidth>",
    b"<tiff:ImageWidth>60</tiff:ImageWidth>" + b" " * 2**24,
]


@pytest.mark.parametrize("xmp", UNREADABLE)
def test_a_packet_that_cannot_be_corrected_and_may_be_false_is_left_out(xmp: bytes) -> None:
    result, notices = xmp_resized(xmp, (60, 40), (240, 160))
    assert result is None
    assert len(notices) == 1
    assert "left out" in notices[0]


@pytest.mark.parametrize("xmp", UNREADABLE)
def test_a_packet_that_cannot_be_false_stays_even_if_it_is_damaged(xmp: bytes) -> None:
    harmless = xmp.replace(b"ImageWidth", b"Artist").replace("ImageWidth".encode("utf-16-le"), "Me".encode("utf-16-le"))
    assert xmp_resized(harmless, (60, 40), (240, 160)) == (harmless, ())


@pytest.mark.parametrize(
    "hostile",
    [
        b"<xmp:Thumbnails>", b"<tiff:ImageWidth ", b"<a b='", b"<a tiff:ImageWidth = ", b"<!--tiff:ImageWidth", b"<",
        b"<?tiff:ImageWidth", b"<a xmlns:b='c' tiff:ImageWidth='1'>", b"tiff:ImageWidth='1' ", b" tiff:ImageWidth ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("front", [b"", b"<a tiff:ImageWidth='1' ", b"<a "])
def test_time_grows_with_the_length_at_most(hostile: bytes, front: bytes) -> None:
    xmp = front + hostile * (2**18 // len(hostile))
    started = time.process_time()
    xmp_resized(xmp, (60, 40), (240, 160))
    xmp_upright(xmp)
    assert time.process_time() - started < 2


def test_a_packet_of_very_many_properties_is_not_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realesr.images.metadata.xmp_text.MOST_PROPERTIES", 3_000)
    xmp = b"<a>" + b"<tiff:ImageWidth/>" * 3_001 + b"</a>"
    result, notices = xmp_resized(xmp, (60, 40), (240, 160))
    assert result is None
    assert "has more than 3,000 properties" in notices[0]


def test_every_cut_of_a_packet_is_edited_or_left_out() -> None:
    for end in range(len(XMP)):
        result, notices = xmp_resized(XMP[:end], (60, 40), (240, 160))
        assert (result is None) == bool(notices)


@pytest.mark.parametrize("turn", range(1, 9))
def test_regions_turn_with_the_image(turn: int) -> None:
    """The middle of a region is at the same place as a pixel that Pillow turns; its sides change places with it."""
    import numpy as np
    from PIL import Image

    pixels = np.zeros((40, 60), np.uint8)
    pixels[7, 11] = 255
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(turn)
    turned = Image.fromarray(pixels).transpose(Image.Transpose(method)) if method is not None else pixels
    y, x = (np.argwhere(np.asarray(turned))[0] + 0.5) / np.asarray(turned).shape
    area = f'<mwg-rs:Area stArea:x="{11.5 / 60}" stArea:y="{7.5 / 40}" stArea:w="0.2" stArea:h="0.1"/>'
    elements = (
        f'<mwg-rs:AppliedToDimensions stDim:w="60" stDim:h="40" stDim:unit="pixel"/>{area}'
        f'<MPReg:Rectangle>{11.5 / 60 - 0.1}, {7.5 / 40 - 0.05}, 0.2, 0.1</MPReg:Rectangle>'
    )  # fmt: skip
    result = ET.fromstring(xmp_upright(packet(f'tiff:Orientation="{turn}"', elements)))
    found = result.find(f".//{{{NAMESPACES['mwg-rs']}}}Area")
    assert found is not None
    values = [float(found.attrib[f"{{{NAMESPACES['stArea']}}}{name}"]) for name in "xywh"]
    sides = (0.1, 0.2) if turn > 4 else (0.2, 0.1)
    assert values == pytest.approx([x, y, *sides], abs=1e-5)
    text = result.findtext(f".//{{{NAMESPACES['MPReg']}}}Rectangle") or ""
    expected = [x - sides[0] / 2, y - sides[1] / 2, *sides]
    assert [float(value) for value in text.split(",")] == pytest.approx(expected, abs=1e-5)
    size = result.find(f".//{{{NAMESPACES['mwg-rs']}}}AppliedToDimensions")
    assert size is not None
    assert [size.attrib[f"{{{NAMESPACES['stDim']}}}{name}"] for name in "wh"] == (
        ["40", "60"] if turn > 4 else ["60", "40"]
    )


def test_the_turn_may_be_stated_elsewhere() -> None:
    elements = '<mwg-rs:AppliedToDimensions stDim:w="60" stDim:h="40" stDim:unit="pixel"/>'
    assert xmp_upright(packet(elements=elements), 6) == packet(
        elements=elements.replace('60" stDim:h="40', '40" stDim:h="60')
    )
    assert xmp_upright(packet(elements=elements)) == packet(elements=elements)
