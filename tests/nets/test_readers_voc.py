"""VOC folders made here: labels, boxes counted from 1, object pictures, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nets.readers import read_pixels, read_voc
from verifier.errors import InputError
from verifier.layered import LayeredNeighbourhood, layer_distances

CAT = "<object><name>cat</name><difficult>0</difficult>{box}</object>"
DOG = "<object><name> dog </name><difficult>1</difficult>{box}</object>"
BOX = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox>"
SIZE = "<size><width>6</width><height>5</height><depth>3</depth></size>"


def write(folder: Path, name: str, body: str) -> Path:
    path = folder / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{name}.jpg</filename>{body}</annotation>")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images; the second has a picture of its objects."""
    for part in ("ImageSets/Main", "JPEGImages", "SegmentationObject"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("000001\n000002\n")
    write(tmp_path, "000001", SIZE + CAT.format(box=BOX) + DOG.format(box=BOX))
    write(tmp_path, "000002", SIZE + DOG.format(box=BOX) + CAT.format(box=BOX) + CAT.format(box=BOX))
    Image.new("RGB", (6, 5), (255, 0, 51)).save(tmp_path / "JPEGImages/000001.jpg", quality=100, subsampling=0)
    objects = np.array([[0, 1, 1, 255, 2, 2]] * 2 + [[3] * 6] + [[0] * 6] * 2, np.uint8)
    picture = Image.fromarray(objects)
    picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "SegmentationObject/000002.png")
    return tmp_path


def test_labels_objects_and_boxes(folder: Path) -> None:
    found = read_voc(folder, "val")
    cat, dog = found.names.index("cat"), found.names.index("dog")
    first, second = found.images
    assert (first.path.name, first.labels, second.labels) == ("000001.jpg", (cat,), (cat,))
    assert [item.label for item in first.objects] == [cat, dog]
    assert [item.is_uncertain for item in first.objects] == [False, True]
    assert read_voc(folder, "val", counts_difficult=True).images[0].labels == (cat, dog)
    wanted = np.zeros((5, 6), bool)
    wanted[0:3, 1:4] = True
    np.testing.assert_array_equal(first.objects[0].outline.mask(), wanted)
    assert found.targets().sum() == 2
    assert found.targets()[0, cat] == 1


def test_object_pictures_give_the_pixels_in_the_order_of_the_annotation(folder: Path) -> None:
    dog, cat, other = (item.outline.mask() for item in read_voc(folder, "val").images[1].objects)
    assert (dog.sum(), cat.sum(), other.sum()) == (4, 4, 6)
    assert dog[:2, 1:3].all()
    assert cat[:2, 4:].all()
    assert other[2].all()


def test_an_object_becomes_a_layered_neighbourhood(folder: Path) -> None:
    image = read_voc(folder, "val").images[0]
    pixels = read_pixels(image.path, 3, 5, 6)
    assert (pixels.shape, pixels.dtype) == ((3, 5, 6), np.float32)
    np.testing.assert_allclose(pixels[:, 0, 0], [1.0, 0.0, 0.2], atol=0.02)
    assert read_pixels(image.path, 1, 10, 4).shape == (1, 10, 4)
    mask = image.objects[0].outline.mask()
    epsilons = np.linspace(0.1, 0.0, int(layer_distances(mask).max()) + 1)
    box = LayeredNeighbourhood(pixels.astype(np.float64), mask, epsilons).box()
    assert box.contains(pixels.astype(np.float64))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<size>", "no annotation in XML"),
        (CAT.format(box=BOX), "<annotation> has no <size/height>"),
        (SIZE.replace("5", "tall"), "<size/height> is 'tall'; wanted a number"),
        (SIZE + CAT.replace("cat", "unicorn").format(box=BOX), "object 1 is a 'unicorn'; wanted one of aeroplane"),
        (SIZE + CAT.format(box=""), "<object> has no <bndbox/xmin>"),
        (SIZE + CAT.format(box=BOX.replace(">2<", ">9<")), "object 1: object box"),
    ],
)
def test_damaged_annotations_are_named(folder: Path, body: str, message: str) -> None:
    write(folder, "000001", body)
    with pytest.raises(InputError, match=message) as caught:
        read_voc(folder, "val")
    assert "000001.xml" in str(caught.value)


def test_entities_do_not_expand(folder: Path) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 9))
    text = f'<!DOCTYPE annotation [<!ENTITY e0 "cat">{entities}]><annotation>&e8;</annotation>'
    (folder / "Annotations/000001.xml").write_text(text)
    with pytest.raises(InputError, match="document type 'annotation'"):
        read_voc(folder, "val")


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test\.txt: cannot be read"):
        read_voc(folder, "test")
    (folder / "Annotations/000002.xml").unlink()
    with pytest.raises(InputError, match=r"000002\.xml: cannot be read"):
        read_voc(folder, "val")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_pixels(folder / "JPEGImages/000002.jpg", 3, 5, 6)
    with pytest.raises(InputError, match="2 channels asked for; wanted 1 or 3"):
        read_pixels(folder / "JPEGImages/000001.jpg", 2, 5, 6)
