"""COCO folders: `annotations/instances_<split>.json` and the images in `<split>/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nets.readers.labelled import ImageObject, LabelledImage, LabelledImages
from nets.readers.outlines import BoxOutline, Outline, PolygonOutline, RunLengthOutline, run_lengths
from verifier.errors import InputError

_LEAST_COORDINATES = 6


def read_coco(directory: Path, split: str, *, counts_crowds: bool = True) -> LabelledImages:
    """The images of one split, such as `val2017`, in the order of the annotation file.

    Classes are in the order of their ids. An image has the label of every object; crowds count unless told otherwise, and are
    kept as objects either way. An object's outline is its segmentation, or its box where it has none.

    Raises:
        InputError: The file is missing or damaged, or refers to images or classes it does not list; the message names the entry.
    """
    path = directory / "annotations" / f"instances_{split}.json"
    content = _content(path)
    try:
        return _images(content, directory / split, counts_crowds=counts_crowds)
    except KeyError as error:
        raise InputError(f"{path}: an entry lacks {error}, or refers to an id that is not listed") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: an entry has an unexpected form ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); wanted the split's annotations") from error
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
    for entry in content["images"]:
        # A file name must not lead out of the folder.
        name = Path(str(entry["file_name"])).name
        present = tuple(objects[entry["id"]])
        counted = {item.label for item in present if counts_crowds or not item.is_uncertain}
        images.append(LabelledImage(folder / name, tuple(sorted(counted)), present))
    return LabelledImages(tuple(str(entry["name"]) for entry in categories), tuple(images))


def _outline(entry: Mapping[str, Any], height: int, width: int) -> Outline:
    segmentation = entry.get("segmentation")
    try:
        if isinstance(segmentation, dict):
            return _run_lengths(segmentation, height, width)
        if segmentation:
            return PolygonOutline(height, width, tuple(_polygon(part) for part in segmentation))
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


def _polygon(numbers: list[Any]) -> tuple[tuple[float, float], ...]:
    flat = [float(number) for number in numbers]
    if len(flat) < _LEAST_COORDINATES or len(flat) % 2:
        raise InputError(f"a polygon of {len(flat)} numbers; wanted x and y of three corners or more")
    return tuple(zip(flat[::2], flat[1::2], strict=True))
