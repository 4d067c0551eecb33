"""What an enlarged image says about itself: read back as XML, and by exiftool from real files of every format."""

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from realesr.images.metadata.chunks import MOST_XMP_BYTES_IN_JPEG
from realesr.images.metadata.provenance import ENLARGED_BY_A_NETWORK, Provenance, xmp_with_provenance
from realesr.images.reader import open_image
from realesr.images.writer import open_writer

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
XMP = "{http://ns.adobe.com/xap/1.0/}"
MM = "{http://ns.adobe.com/xap/1.0/mm/}"
EVENT = "{http://ns.adobe.com/xap/1.0/sType/ResourceEvent#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"

PROVENANCE = Provenance(software="realesr 9.9", network="realesrgan-x4plus", scale=4.0)


def packet(properties: str, attributes: str = "", about: str = "") -> bytes:
    """Return a packet whose one description has these properties."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="{about}" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" '
        f'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" {attributes}>{properties}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def told(xmp: bytes | None, provenance: Provenance = PROVENANCE) -> ElementTree.Element:
    """Return the RDF of a packet with provenance, parsed; there must be no notice."""
    found, notices = xmp_with_provenance(xmp, provenance, "png")
    assert found is not None and notices == ()
    root = ElementTree.fromstring(found.decode()).find(f"{RDF}RDF")
    assert root is not None
    return root


def values(root: ElementTree.Element, name: str) -> list[str | None]:
    """Return the values of a property of the image, as element or attribute."""
    found: list[str | None] = []
    for description in root.findall(f"{RDF}Description"):
        found += [element.text for element in description.findall(name)]
        if name in description.attrib:
            found.append(description.attrib[name])
    return found


def events(root: ElementTree.Element) -> list[tuple[str | None, str | None]]:
    """Return action and software of every event of the history."""
    lists = [each for part in root.findall(f"{RDF}Description") for each in part.findall(f"{MM}History/{RDF}Seq")]
    assert len(lists) <= 1
    return [(li.findtext(f"{EVENT}action"), li.findtext(f"{EVENT}softwareAgent")) for li in (lists[0] if lists else [])]


def test_an_image_without_xmp_gets_a_packet() -> None:
    root = told(None)
    assert values(root, f"{XMP}CreatorTool") == ["realesr 9.9 (realesrgan-x4plus, x4)"]
    assert values(root, f"{IPTC}DigitalSourceType") == [TYPES + "compositeWithTrainedAlgorithmicMedia"]
    assert events(root) == [("resized", "realesr 9.9")]


def test_the_bytes_of_a_packet_stay_but_for_what_is_set() -> None:
    properties = "<xmp:Rating>4</xmp:Rating><!-- <xmp:CreatorTool>no</xmp:CreatorTool> -->"
    found, _ = xmp_with_provenance(packet(properties, about="uuid:1"), PROVENANCE, "png")
    assert found is not None
    before, after = packet(properties, about="uuid:1").split(b"</rdf:RDF>")
    assert found.startswith(before) and found.endswith(b"</rdf:RDF>" + after)
    assert values(told(packet(properties, about="uuid:1")), f"{RDF}about") == ["uuid:1", "uuid:1"]


@pytest.mark.parametrize("form", ["element", "attribute"])
def test_the_program_that_was_named_before_goes_into_the_history(form: str) -> None:
    as_element = packet("<xmp:CreatorTool>Camera &amp; Co 1.0</xmp:CreatorTool>")
    as_attribute = packet("", 'xmp:CreatorTool="Camera &amp; Co 1.0"')
    root = told(as_element if form == "element" else as_attribute)
    assert values(root, f"{XMP}CreatorTool") == ["realesr 9.9 (realesrgan-x4plus, x4)"]
    (parameters,) = [each.text for each in root.iter(f"{EVENT}parameters")]
    assert parameters == "realesrgan-x4plus, x4; xmp:CreatorTool was: Camera & Co 1.0"


def test_a_history_goes_on() -> None:
    history = (
        '<xmpMM:History><rdf:Seq><rdf:li rdf:parseType="Resource"><stEvt:action>saved</stEvt:action>'
        "<stEvt:softwareAgent>Editor 2</stEvt:softwareAgent></rdf:li></rdf:Seq></xmpMM:History>"
    )
    root = told(packet(history))
    assert events(root) == [("saved", "Editor 2"), ("resized", "realesr 9.9")]
    twice, _ = xmp_with_provenance(packet(history), PROVENANCE, "png")
    assert [software for _, software in events(told(twice))] == ["Editor 2", "realesr 9.9", "realesr 9.9"]
    assert len(values(told(twice), f"{XMP}CreatorTool")) == 1


@pytest.mark.parametrize("empty", ["<xmpMM:History/>", "<xmpMM:History><rdf:Seq/></xmpMM:History>"])
def test_an_empty_history_is_replaced(empty: str) -> None:
    assert events(told(packet(empty))) == [("resized", "realesr 9.9")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("digitalCapture", "compositeWithTrainedAlgorithmicMedia"),
        ("compositeCapture", "compositeWithTrainedAlgorithmicMedia"),
        ("trainedAlgorithmicMedia", "trainedAlgorithmicMedia"),
        ("compositeWithTrainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"),
    ],
)
@pytest.mark.parametrize("form", ["element", "attribute"])
def test_a_picture_that_a_network_made_stays_one(before: str, after: str, form: str) -> None:
    as_element = packet(f"<Iptc4xmpExt:DigitalSourceType>{TYPES}{before}</Iptc4xmpExt:DigitalSourceType>")
    as_attribute = packet("", f'Iptc4xmpExt:DigitalSourceType="{TYPES}{before}"')
    root = told(as_element if form == "element" else as_attribute)
    assert values(root, f"{IPTC}DigitalSourceType") == [TYPES + after]


MADE_BY_A_NETWORK = TYPES + "trainedAlgorithmicMedia"


@pytest.mark.parametrize(
    "value",
    [
        "trainedAlgorithmicMedia",
        "digsrctype:trainedAlgorithmicMedia",
        MADE_BY_A_NETWORK.replace("http:", "https:"),
        MADE_BY_A_NETWORK.replace("/", "&#x2F;"),
        f" {MADE_BY_A_NETWORK}/\n",
    ],
)
def test_that_a_network_made_it_is_seen_in_every_form(value: str) -> None:
    root = told(packet(f"<Iptc4xmpExt:DigitalSourceType>{value}</Iptc4xmpExt:DigitalSourceType>"))
    assert values(root, f"{IPTC}DigitalSourceType") == [value.replace("&#x2F;", "/")]


def test_that_a_network_made_it_is_seen_as_a_resource() -> None:
    root = told(packet(f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{MADE_BY_A_NETWORK}"/>'))
    (kept,) = root.iter(f"{IPTC}DigitalSourceType")
    assert kept.attrib == {f"{RDF}resource": MADE_BY_A_NETWORK}


def test_a_source_type_that_only_begins_like_one_is_replaced() -> None:
    root = told(packet("", f'Iptc4xmpExt:DigitalSourceType="{MADE_BY_A_NETWORK}Not"'))
    assert values(root, f"{IPTC}DigitalSourceType") == [ENLARGED_BY_A_NETWORK.decode()]


def test_a_history_as_a_bag_goes_on() -> None:
    bag = "<xmpMM:History><rdf:Bag><rdf:li>scanned</rdf:li></rdf:Bag></xmpMM:History>"
    first, second = told(packet(bag)).iter(f"{RDF}li")
    assert first.text == "scanned"
    assert second.findtext(f"{EVENT}action") == "resized"


def test_a_program_whose_name_ends_character_data_stays_xml() -> None:
    (parameters,) = told(packet("", 'xmp:CreatorTool="a ]]> b"')).iter(f"{EVENT}parameters")
    assert parameters.text == "realesrgan-x4plus, x4; xmp:CreatorTool was: a ]]> b"


def test_a_packet_may_be_padded_with_zeros() -> None:
    padded = packet("<xmp:Rating>4</xmp:Rating>") + bytes(20)
    found, notices = xmp_with_provenance(padded, PROVENANCE, "png")
    assert notices == ()
    assert found is not None and found.endswith(bytes(20)) and ENLARGED_BY_A_NETWORK in found


def test_an_empty_rdf_is_filled() -> None:
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="{RDF[1:-1]}" /></x:xmpmeta>'.encode()
    assert events(told(xmp)) == [("resized", "realesr 9.9")]


def test_what_an_ingredient_says_about_itself_stays() -> None:
    pantry = (
        '<xmpMM:Pantry><rdf:Bag><rdf:li rdf:parseType="Resource"><xmp:CreatorTool>Other</xmp:CreatorTool></rdf:li>'
        "</rdf:Bag></xmpMM:Pantry>"
    )
    root = told(packet(pantry))
    assert [each.text for each in root.iter(f"{XMP}CreatorTool")] == ["Other", "realesr 9.9 (realesrgan-x4plus, x4)"]


def test_a_networks_name_may_have_any_characters() -> None:
    name = 'my <net> & "co"\x00\x07\udcff'
    root = told(None, Provenance(software="realesr 9.9", network=name, scale=2.5))
    assert values(root, f"{XMP}CreatorTool") == ['realesr 9.9 (my <net> & "co", x2.5)']


@pytest.mark.parametrize(
    "xmp", [b"", b"no xml", packet("<xmp:Rating>"), "packet".encode("utf-16"), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"]
)
def test_a_packet_that_cannot_be_edited_stays_with_a_notice(xmp: bytes) -> None:
    found, (notice,) = xmp_with_provenance(xmp, PROVENANCE, "jpeg")
    assert found == xmp
    assert "is not written into it" in notice


def test_the_photos_own_xmp_is_not_lost_where_jpeg_has_no_room_for_more() -> None:
    full = packet("<xmp:Label>" + "x" * (MOST_XMP_BYTES_IN_JPEG - 700) + "</xmp:Label>")
    assert len(full) <= MOST_XMP_BYTES_IN_JPEG
    found, (notice,) = xmp_with_provenance(full, PROVENANCE, "jpeg")
    assert found == full and "as long as JPEG allows" in notice
    assert xmp_with_provenance(full, PROVENANCE, "png")[1] == ()


def test_the_padding_gives_way_where_jpeg_has_no_room_for_more() -> None:
    end = b'<?xpacket end="w"?>'
    padded = packet("<xmp:Label>x</xmp:Label>").replace(end, b" " * 64_500 + end)
    assert len(padded) <= MOST_XMP_BYTES_IN_JPEG
    found, notices = xmp_with_provenance(padded, PROVENANCE, "jpeg")
    assert notices == ()
    assert found is not None and len(found) < 3000 and found.endswith(end) and b"<xmp:Label>x<" in found


def test_an_image_whose_xmp_jpeg_cannot_hold_gets_a_packet_of_its_own() -> None:
    large = packet("<xmp:Label>" + "x" * MOST_XMP_BYTES_IN_JPEG + "</xmp:Label>")
    assert xmp_with_provenance(large, PROVENANCE, "jpeg") == xmp_with_provenance(None, PROVENANCE, "jpeg")


def test_a_picture_of_the_same_size_was_not_resized() -> None:
    root = told(None, Provenance(software="realesr 9.9", network="a", scale=1.0))
    assert events(root) == [("filtered", "realesr 9.9")]


def test_a_hostile_packet_takes_no_time() -> None:
    deep = packet("<a:b>" * 40_000 + "</a:b>" * 40_000)
    wide = packet("<xmp:CreatorTool>x</xmp:CreatorTool>" * 40_000)
    started = time.perf_counter()
    for xmp in (deep, wide):
        xmp_with_provenance(xmp, PROVENANCE, "png")
    assert time.perf_counter() - started < 10


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
def test_exiftool_reads_it_back_from_every_format(suffix: str, tmp_path: Path) -> None:
    source, target = tmp_path / "photo.png", tmp_path / f"large.{suffix}"
    Image.new("RGB", (8, 8)).save(source)
    with open_image(source) as reader:
        info = reader.info
    xmp, _ = xmp_with_provenance(packet("<xmp:Rating>4</xmp:Rating>"), PROVENANCE, "png")
    fmt = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    with open_writer(target, replace(info, xmp=xmp), fmt) as writer:  # type: ignore[arg-type]
        writer.write_rows(np.zeros((8, 8, 3), np.uint8))
    answer = subprocess.run(["exiftool", "-j", "-XMP:all", str(target)], capture_output=True, check=True).stdout
    (found,) = json.loads(answer)
    assert found["CreatorTool"] == "realesr 9.9 (realesrgan-x4plus, x4)"
    assert found["DigitalSourceType"] == ENLARGED_BY_A_NETWORK.decode()
    assert found["HistorySoftwareAgent"] == "realesr 9.9"
    assert found["Rating"] == 4
