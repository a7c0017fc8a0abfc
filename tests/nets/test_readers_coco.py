"""COCO folders made here: polygons, run lengths, boxes, crowds, and damaged annotation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nets.readers import read_coco
from verifier.errors import InputError


def annotation(**changes: Any) -> dict[str, Any]:
    entry = {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 1, 2, 3], "iscrowd": 0}
    return {**entry, **changes}


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "7.jpg", "height": 4, "width": 5},
            {"id": 3, "file_name": "3.jpg", "height": 2, "width": 3},
        ],
        "annotations": list(annotations),
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }


def write(folder: Path, found: Any) -> Path:
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return folder


def test_labels_outlines_and_crowds(tmp_path: Path) -> None:
    write(
        tmp_path,
        content(
            annotation(),
            annotation(id=2, category_id=1, segmentation=[[0, 0, 2, 0, 2, 2, 0, 2]]),
            annotation(id=3, image_id=3, iscrowd=1, segmentation={"counts": [1, 3, 2], "size": [2, 3]}),
            annotation(id=4, image_id=3, category_id=1, segmentation={"counts": "132", "size": [2, 3]}),
        ),
    )
    found = read_coco(tmp_path, "val2017")
    assert found.names == ("person", "dog")
    first, second = found.images
    assert first.path == tmp_path / "val2017" / "7.jpg"
    assert (first.labels, second.labels) == ((0, 1), (0, 1))
    assert read_coco(tmp_path, "val2017", counts_crowds=False).images[1].labels == (0,)
    box, polygon = (item.outline.mask() for item in first.objects)
    crowd, compressed = (item.outline.mask() for item in second.objects)
    wanted = np.zeros((4, 5), bool)
    wanted[1:4, 1:3] = True
    np.testing.assert_array_equal(box, wanted)
    assert polygon[:3, :3].all()
    assert polygon.sum() == 9
    np.testing.assert_array_equal(crowd, [[False, True, False], [True, True, False]])
    np.testing.assert_array_equal(crowd, compressed)
    assert second.objects[0].is_uncertain
    np.testing.assert_array_equal(found.targets(), np.ones((2, 2)))


def test_a_polygon_of_fewer_than_three_corners_encloses_no_pixel(tmp_path: Path) -> None:
    square = [0, 0, 2, 0, 2, 2, 0, 2]
    write(
        tmp_path,
        content(
            annotation(bbox=[5, 5, 1, 0], segmentation=[[5, 5, 6, 5]]),
            annotation(id=2, image_id=3, segmentation=[[1, 1, 0, 0], square, []]),
            annotation(id=3, image_id=3, category_id=1, segmentation=[square]),
        ),
    )
    first, second = read_coco(tmp_path, "val2017").images
    assert (first.labels, second.labels) == ((1,), (0, 1))
    mask = first.objects[0].outline.mask()
    assert mask.shape == (4, 5)
    assert not mask.any()
    np.testing.assert_array_equal(*(item.outline.mask() for item in second.objects))


def test_two_files_of_one_name_in_two_folders_are_refused(tmp_path: Path) -> None:
    found = content()
    found["images"][0]["file_name"], found["images"][1]["file_name"] = "a/1.jpg", "b/1.jpg"
    write(tmp_path, found)
    with pytest.raises(InputError, match=r"images 'a/1\.jpg' and 'b/1\.jpg': both would be '1\.jpg'"):
        read_coco(tmp_path, "val2017")


def test_a_file_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    found = content()
    found["images"][0]["file_name"] = "../../secret.jpg"
    write(tmp_path, found)
    assert read_coco(tmp_path, "val2017").images[0].path == tmp_path / "val2017" / "secret.jpg"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ([], "wanted an object with the lists images, annotations, categories"),
        ({"images": [], "annotations": {}, "categories": []}, "wanted an object with the lists"),
        (content(annotation(image_id=99)), "an entry lacks 99, or refers to an id"),
        (content(annotation(category_id=99)), "an entry lacks 99"),
        (content({"id": 1}), "an entry lacks 'category_id'"),
        (content(annotation(bbox=[1, 2, 3])), "an entry has an unexpected form"),
        (content(annotation(bbox=[0, 0, 0, 2])), "annotation 1: object box"),
        (content(annotation(segmentation=[[0, 0, 1, 1, 2]])), "annotation 1: a polygon of 5 numbers"),
        (content(annotation(segmentation=[[0, 0, 1, float("nan")]])), "annotation 1: a polygon of 4 numbers"),
        (content(annotation(segmentation=["0011"])), "annotation 1: a polygon that is no list of numbers"),
        (
            content(annotation(segmentation=[["0", "0", "1", "1"]])),
            "annotation 1: a polygon that is no list of numbers",
        ),
        (content(annotation(segmentation=[[0, 0, 1, 10**400]])), "an entry has an unexpected form"),
        (content(annotation(segmentation={"counts": [1], "size": [4, 5]})), "annotation 1: run lengths"),
        (content(annotation(segmentation={"counts": [6], "size": [2, 3]})), r"wanted its size \(4, 5\)"),
        (content(annotation(segmentation={"counts": "~", "size": [4, 5]})), "annotation 1: run lengths"),
        ({**content(), "images": ["7.jpg"]}, "an entry has an unexpected form"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, found: Any, message: str) -> None:
    write(tmp_path, found)
    with pytest.raises(InputError, match=message) as caught:
        read_coco(tmp_path, "val2017")
    assert "instances_val2017.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"instances_val2017\.json: cannot be read"):
        read_coco(tmp_path, "val2017")
