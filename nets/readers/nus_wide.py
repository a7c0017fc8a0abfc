"""NUS-WIDE folders: `ImageList`, `Groundtruth`, `ConceptsList/Concepts81.txt` and the images in `Flickr`."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Final

from nets.readers.labelled import LabelledImage, LabelledImages, read_lines
from verifier.errors import InputError

_IMAGES: Final = "Flickr"
# Split -> the list of its images, the folder of its labels, and what their file names end with.
_SPLITS: Final = {
    "all": ("Imagelist.txt", "AllLabels", ""),
    "train": ("TrainImagelist.txt", "TrainTestLabels", "_Train"),
    "test": ("TestImagelist.txt", "TrainTestLabels", "_Test"),
}


def read_nus_wide(directory: Path, split: str) -> LabelledImages:
    """The images of "train", "test" or "all", in the order of the image list; the set has no objects.

    Raises:
        InputError: The split is unknown, a list is missing, has another length than the image list, or is not made of 0 and 1.
    """
    if split not in _SPLITS:
        raise InputError(f"NUS-WIDE split {split!r}: unknown; wanted one of {', '.join(_SPLITS)}")
    list_name, label_folder, ending = _SPLITS[split]
    names = read_lines(directory / "ConceptsList" / "Concepts81.txt", "names of concepts, one a line")
    listed = read_lines(directory / "ImageList" / list_name, "file names of images, one a line")
    labels: list[list[int]] = [[] for _ in listed]
    for index, name in enumerate(names):
        path = directory / "Groundtruth" / label_folder / f"Labels_{name}{ending}.txt"
        marks = read_lines(path, "0 or 1, one line an image")
        if len(marks) != len(listed):
            raise InputError(f"{path}: {len(marks)} lines; wanted {len(listed)}, one for each image of {list_name}")
        for line, (mark, found) in enumerate(zip(marks, labels, strict=True), start=1):
            if mark not in ("0", "1"):
                raise InputError(f"{path}, line {line}: {mark!r}; wanted 0 or 1")
            if mark == "1":
                found.append(index)
    images = (
        LabelledImage(_image_path(directory, name), tuple(found)) for name, found in zip(listed, labels, strict=True)
    )
    return LabelledImages(tuple(names), tuple(images), directory / _IMAGES)


def _image_path(directory: Path, listed: str) -> Path:
    """The image's path; lists are written with backslashes, which Windows paths read along with slashes."""
    parts = PureWindowsPath(listed).parts
    if PureWindowsPath(listed).anchor or ".." in parts:
        raise InputError(f"{directory}: image {listed!r} lies outside the folder; wanted a relative path")
    return directory.joinpath(_IMAGES, *parts)
