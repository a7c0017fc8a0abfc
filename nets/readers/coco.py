"""COCO folders: `annotations/instances_<split>.json` and the images in `<split>/`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nets.readers.labelled import ImageObject, LabelledImage, LabelledImages, splits_there, why
from nets.readers.outlines import BoxOutline, Outline, PolygonOutline, RunLengthOutline, run_lengths
from verifier.errors import InputError

_LEAST_CORNERS = 3


def read_coco(directory: Path, split: str, *, counts_crowds: bool = True) -> LabelledImages:
    """The images of one split, such as `val2017`, in the order of the annotation file.

    Classes are in the order of their ids. An image has the label of every object; crowds count unless told otherwise, and are
    kept as objects either way. An object's outline is its segmentation, or its box where it has none. A polygon of fewer than
    three corners encloses no pixel; its object has the pixels of its other polygons, none if there is no other, and its label.

    Raises:
        InputError: The file is missing or damaged, refers to images or classes it does not list, or two of its images would be
            the same file of `<split>/`; the message names the entry.
    """
    path = directory / "annotations" / f"instances_{split}.json"
    content = _content(path)
    try:
        return _images(content, directory / split, counts_crowds=counts_crowds)
    except KeyError as error:
        raise InputError(f"{path}: an entry lacks {error}, or refers to an id that is not listed") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path}: an entry has an unexpected form ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        found = splits_there(other.stem.removeprefix("instances_") for other in path.parent.glob("instances_*.json"))
        raise InputError(f"{path}: cannot be read ({why(error)}); wanted the split's annotations; {found}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({error}); fetch the annotations again") from error
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in wanted):
        raise InputError(f"{path}: wanted an object with the lists {', '.join(wanted)}")
    return content


def _images(content: Mapping[str, Any], folder: Path, *, counts_crowds: bool) -> LabelledImages:
    categories = sorted(content["categories"], key=lambda entry: int(entry["id"]))
    labels = {entry["id"]: index for index, entry in enumerate(categories)}
    objects: dict[Any, list[ImageObject]] = {entry["id"]: [] for entry in content["images"]}
    sizes = {entry["id"]: (int(entry["height"]), int(entry["width"])) for entry in content["images"]}
    for entry in content["annotations"]:
        found = ImageObject(
            labels[entry["category_id"]], _outline(entry, *sizes[entry["image_id"]]), bool(entry.get("iscrowd"))
        )
        objects[entry["image_id"]].append(found)
    images = []
    for entry, name in zip(content["images"], _file_names(content["images"]), strict=True):
        present = tuple(objects[entry["id"]])
        counted = {item.label for item in present if counts_crowds or not item.is_uncertain}
        images.append(LabelledImage(folder / name, tuple(sorted(counted)), present))
    return LabelledImages(tuple(str(entry["name"]) for entry in categories), tuple(images), folder)


def _file_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The images' names without folders, so that none leads out of the split's folder."""
    written: dict[str, str] = {}
    names = []
    for entry in entries:
        full = str(entry["file_name"])
        name = Path(full).name
        if written.setdefault(name, full) != full:
            raise InputError(
                f"images {written[name]!r} and {full!r}: both would be {name!r} in the split's folder; wanted names that"
                " differ without folders"
            )
        names.append(name)
    return names


def _outline(entry: Mapping[str, Any], height: int, width: int) -> Outline:
    segmentation = entry.get("segmentation")
    try:
        if isinstance(segmentation, dict):
            return _run_lengths(segmentation, height, width)
        if segmentation:
            polygons = [_polygon(part) for part in segmentation]
            return PolygonOutline(height, width, tuple(part for part in polygons if len(part) >= _LEAST_CORNERS))
        left, top, box_width, box_height = (float(side) for side in entry["bbox"])
        return BoxOutline(height, width, left, top, left + box_width, top + box_height)
    except InputError as error:
        raise InputError(f"annotation {entry.get('id')}: {error}") from error


def _run_lengths(segmentation: Mapping[str, Any], height: int, width: int) -> RunLengthOutline:
    counts, size = segmentation["counts"], tuple(int(side) for side in segmentation["size"])
    if size != (height, width):
        raise InputError(f"run lengths for an image of {size}; wanted its size ({height}, {width})")
    lengths = run_lengths(counts) if isinstance(counts, str) else tuple(int(count) for count in counts)
    return RunLengthOutline(height, width, lengths)


def _polygon(numbers: Any) -> tuple[tuple[float, float], ...]:
    """The corners, however few."""
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise InputError("a polygon that is no list of numbers; wanted x and y of each corner")
    flat = [float(number) for number in numbers]
    if len(flat) % 2 or not all(map(math.isfinite, flat)):
        raise InputError(f"a polygon of {len(flat)} numbers; wanted x and y of each corner, all finite")
    return tuple(zip(flat[::2], flat[1::2], strict=True))
