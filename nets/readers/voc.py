"""PASCAL VOC folders: `Annotations/*.xml`, `ImageSets/Main/*.txt`, `JPEGImages`, `SegmentationObject/*.png`."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from nets.readers.labelled import ImageObject, LabelledImage, LabelledImages, read_lines, splits_there, why
from nets.readers.outlines import BoxOutline, IndexedOutline, Outline
from verifier.errors import InputError

_IMAGES: Final = "JPEGImages"
VOC_CLASSES: Final = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def read_voc(
    directory: Path, split: str, *, names: tuple[str, ...] = VOC_CLASSES, counts_difficult: bool = False
) -> LabelledImages:
    """The images of one split of a folder such as `VOCdevkit/VOC2007`, in the order of `ImageSets/Main/<split>.txt`.

    An image has the label of every object in its annotation; objects marked difficult count only if `counts_difficult`, and are
    kept as objects either way. An object's outline is its pixels in `SegmentationObject` where the image has such a picture,
    its box elsewhere. `names` are the classes, in order.

    Raises:
        InputError: A list or annotation is missing or damaged, or names an unknown class; the message names file and object.
    """
    lists = directory / "ImageSets" / "Main"
    listed = read_lines(lists / f"{split}.txt", f"names of images, one a line; {_splits(lists, names)}")
    images = tuple(_image(directory, name.split()[0], names, counts_difficult) for name in listed)
    return LabelledImages(names, images, directory / _IMAGES)


def _splits(lists: Path, names: tuple[str, ...]) -> str:
    """The splits that exist; beside them lie lists of single classes, such as `cat_val.txt`."""
    of_classes = tuple(f"{name}_" for name in names)
    return splits_there(path.stem for path in lists.glob("*.txt") if not path.stem.startswith(of_classes))


def _image(directory: Path, name: str, names: tuple[str, ...], counts_difficult: bool) -> LabelledImage:
    path = directory / "Annotations" / f"{name}.xml"
    root = _parsed(path)
    height, width = (int(_number(root, f"size/{side}", path)) for side in ("height", "width"))
    picture = directory / "SegmentationObject" / f"{name}.png"
    has_masks = picture.is_file()
    objects = []
    for index, element in enumerate(root.iterfind("object"), start=1):
        label = _text(element, "name", path)
        if label not in names:
            raise InputError(f"{path}: object {index} is a {label!r}; wanted one of {', '.join(names)}")
        outline: Outline = IndexedOutline(picture, index) if has_masks else _box(element, height, width, path, index)
        is_difficult = element.findtext("difficult", "0").strip() == "1"
        objects.append(ImageObject(names.index(label), outline, is_difficult))
    labels = {found.label for found in objects if counts_difficult or not found.is_uncertain}
    file_name = root.findtext("filename", f"{name}.jpg").strip()
    return LabelledImage(directory / _IMAGES / Path(file_name).name, tuple(sorted(labels)), tuple(objects))


def _box(element: ElementTree.Element, height: int, width: int, path: Path, index: int) -> BoxOutline:
    left, top, right, bottom = (_number(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
    try:
        # VOC counts pixels from 1, and the last one is inside.
        return BoxOutline(height, width, left - 1, top - 1, right, bottom)
    except InputError as error:
        raise InputError(f"{path}: object {index}: {error}") from error


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses document types before an entity of theirs can expand."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called at the declaration's start."""
        del pubid, system
        raise InputError(f"document type {name!r}; annotations have none")


def _parsed(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_WithoutDoctype()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({why(error)}); wanted the image's annotation") from error
    except (ElementTree.ParseError, InputError, ValueError) as error:
        raise InputError(f"{path}: no annotation in XML ({error}); fetch the set again") from error


def _text(element: ElementTree.Element, name: str, path: Path) -> str:
    found = element.findtext(name)
    if found is None or not found.strip():
        raise InputError(f"{path}: <{element.tag}> has no <{name}>; the annotation is damaged")
    return found.strip()


def _number(element: ElementTree.Element, name: str, path: Path) -> float:
    text = _text(element, name, path)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: <{name}> is {text!r}; wanted a number") from None
