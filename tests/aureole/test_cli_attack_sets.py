"""`aureole attack` on annotated sets in their official layouts, made here: their labels, their pictures, their claims."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pyarrow import parquet

from attacks.claims import ClaimVerdict
from aureole.exits import ExitCode
from aureole.image_sets import known_labels, read_images
from nets.readers.voc import VOC_CLASSES
from verifier.errors import InputError

SHAPE = (3, 4, 4)
LEFT, RIGHT = (230, 20, 20), (20, 20, 230)


def network(path, labels, first, second):
    """Label `first` scores the mean of the reds, `second` the mean of the blues, all others little."""
    weight = np.zeros((labels, 48), np.float32)
    weight[first, :16] = weight[second, 32:] = 1 / 16
    bias = np.linspace(0.01, 0.05, labels).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", labels])],
        initializer=[numpy_helper.from_array(array, name) for name, array in (("weight", weight), ("bias", bias))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def picture(path, colour, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=100, subsampling=0)


def voc(folder):
    names = {"000001": ("cat", LEFT), "000002": ("dog", RIGHT)}
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(names))
    (folder / "Annotations").mkdir()
    for name, (label, colour) in names.items():
        picture(folder / f"JPEGImages/{name}.jpg", colour)
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>"
        (folder / f"Annotations/{name}.xml").write_text(
            "<annotation><size><width>8</width><height>6</height><depth>3</depth></size>"
            f"<object><name>{label}</name><difficult>0</difficult>{box}</object></annotation>"
        )
    return "voc:test", len(VOC_CLASSES), VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")


def coco(folder):
    images = [
        {"id": 1, "file_name": "1.jpg", "height": 6, "width": 8},
        {"id": 2, "file_name": "2.jpg", "height": 6, "width": 8},
    ]
    boxes = [
        {"id": place, "image_id": place, "category_id": 10 * place, "bbox": [1, 1, 2, 3], "iscrowd": 0}
        for place in (1, 2)
    ]
    kinds = [{"id": 10, "name": "person"}, {"id": 20, "name": "kite"}, {"id": 30, "name": "cup"}]
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations/instances_val2017.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": kinds})
    )
    for place, colour in ((1, LEFT), (2, RIGHT)):
        picture(folder / f"val2017/{place}.jpg", colour)
    return "coco:val2017", 3, 0, 1


def nus_wide(folder):
    texts = {
        "ConceptsList/Concepts81.txt": "airport\nbeach\ncat\n",
        "ImageList/TestImagelist.txt": "a\\1.jpg\na\\2.jpg\n",
        "Groundtruth/TrainTestLabels/Labels_airport_Test.txt": "1\n0\n",
        "Groundtruth/TrainTestLabels/Labels_beach_Test.txt": "0\n1\n",
        "Groundtruth/TrainTestLabels/Labels_cat_Test.txt": "0\n0\n",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for place, colour in ((1, LEFT), (2, RIGHT)):
        picture(folder / f"Flickr/a/{place}.jpg", colour)
    return "nus-wide:test", 3, 0, 1


@pytest.fixture(params=[voc, coco, nus_wide], ids=lambda make: make.__name__)
def case(request, tmp_path):
    """The reference of a set, and a network that knows its two images."""
    folder = tmp_path / "set"
    folder.mkdir()
    kind, labels, first, second = request.param(folder)
    return f"{kind}:{folder}", network(tmp_path / "net.onnx", labels, first, second), first, second


def test_a_set_is_attacked_end_to_end_and_cross_checked(aureole, case, tmp_path):
    reference, net, first, second = case
    words = ("attack", net, reference, "--method", "bim", "--goal", "top-k-untargeted", "--k", "1")
    words += ("--norm", "linf", "--eps", "0.6", "--batch", "1", "--out", tmp_path / "out")
    ended = aureole(*words)
    assert ended.code == 0, ended.err
    rows = parquet.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert [row["labels"] for row in rows] == [[first], [second]]
    assert [row["success"] for row in rows] == [True, True]
    assert all(row["name"].startswith(reference) for row in rows)
    lines = (tmp_path / "out/progress.jsonl").read_text()
    assert aureole(*words).code == 0
    assert (tmp_path / "out/progress.jsonl").read_text() == lines
    checked = aureole("crosscheck", tmp_path / "out", "--network", net, "--json", "--out", tmp_path / "checked")
    assert checked.code == 0, checked.err
    assert json.loads(checked.out)["counts"] == {ClaimVerdict.CONFIRMED.value: 2}


def test_pictures_are_resized_and_labels_are_the_annotation_s(case):
    reference, _, first, second = case
    images = read_images([reference], SHAPE)
    assert [image.pixels.shape for image in images] == [SHAPE, SHAPE]
    np.testing.assert_allclose(images[0].pixels[:, 0, 0] * 255, LEFT, atol=3)
    marks = known_labels(images, images[0].classes)
    assert [np.flatnonzero(row).tolist() for row in marks] == [[first], [second]]
    with pytest.raises(InputError, match="classes, the network 7 labels"):
        known_labels(images, 7)


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        ("voc:test", ExitCode.USAGE, "wanted voc:SPLIT:FOLDER, such as voc:test:path/to/folder"),
        ("coco::somewhere", ExitCode.USAGE, "wanted coco:SPLIT:FOLDER"),
        ("nus-wide:test:missing", ExitCode.NO_INPUT, "no folder missing"),
    ],
)
def test_what_names_no_set_is_refused_in_one_line(aureole, halves, reference, code, message):
    ended = aureole("attack", halves, reference)
    assert ended.code == code
    assert message in ended.err
    assert "Traceback" not in ended.err
