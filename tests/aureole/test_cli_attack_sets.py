"""`aureole attack` on annotated sets in their official layouts, made here: their labels, their pictures, their claims."""

import json
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pyarrow import parquet

from attacks.claims import ClaimVerdict
from attacks.metrics import Norm, norms, rmsd
from aureole.attack_pictures import MOST_ROWS
from aureole.exits import ExitCode, UsageError
from aureole.image_sets import known_labels, read_images, read_labels
from nets import readers
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


def names(images):
    return [image.name for image in images]


@pytest.fixture
def one_name_twice(tmp_path):
    """NUS-WIDE with two different pictures of one file name, in two folders."""
    folder = tmp_path / "set"
    kind, *_ = nus_wide(folder)
    (folder / "ImageList/TestImagelist.txt").write_text("actor\\0001_1.jpg\nzoo\\0001_1.jpg\n")
    picture(folder / "Flickr/actor/0001_1.jpg", LEFT)
    picture(folder / "Flickr/zoo/0001_1.jpg", RIGHT)
    return f"{kind}:{folder}", network(tmp_path / "net.onnx", 3, 0, 1)


def test_files_of_one_name_in_two_folders_are_two_images(aureole, one_name_twice, tmp_path):
    reference, net = one_name_twice
    images = read_images([reference, reference], SHAPE)
    assert names(images) == [f"{reference}/actor/0001_1.jpg", f"{reference}/zoo/0001_1.jpg"]
    np.testing.assert_allclose([image.pixels[:, 0, 0] * 255 for image in images], [LEFT, RIGHT], atol=3)
    words = ("--goal", "top-k-untargeted", "--k", "1", "--method", "fgsm", "--norm", "linf", "--eps", "0.6")
    ended = aureole("attack", net, reference, *words, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    rows = parquet.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert [row["labels"] for row in rows] == [[0], [1]]
    assert [row["name"] for row in rows] == names(images)


def test_a_label_file_means_one_image_by_a_name(one_name_twice, tmp_path):
    reference, _ = one_name_twice
    images = read_images([reference], SHAPE)
    path = tmp_path / "labels.csv"
    path.write_text(f"image,labels\n{images[0].name},0\n{images[1].name},2\n")
    assert read_labels(path, images, 3).tolist() == [[True, False, False], [False, False, True]]
    path.write_text("image,labels\n0001_1.jpg,0\n")
    with pytest.raises(InputError, match="wanted its whole name, as 2 images end so"):
        read_labels(path, images, 3)
    assert read_labels(path, images[:1], 3).tolist() == [[True, False, False]]


def test_what_differs_under_one_name_is_refused(tmp_path):
    folder = tmp_path / "set"
    reference = f"{nus_wide(folder)[0]}:{folder}"
    listed = folder / "ImageList/TestImagelist.txt"
    listed.write_text("a\\1.jpg\na\\1.jpg\n")
    with pytest.raises(InputError, match=r"a/1\.jpg: named twice, with other pixels or labels"):
        read_images([reference], SHAPE)
    for concept in ("airport", "beach"):
        (folder / f"Groundtruth/TrainTestLabels/Labels_{concept}_Test.txt").write_text("1\n1\n")
    assert len(read_images([reference], SHAPE)) == 1


def test_a_range_of_a_set(case):
    reference, _, _, _ = case
    kind, split, folder = reference.split(":", 2)
    whole = names(read_images([reference], SHAPE))
    for words, wanted in (("0", whole[:1]), ("1-1", whole[1:]), ("0-1", whole)):
        assert names(read_images([f"{kind}:{split}:{words}:{folder}"], SHAPE)) == wanted
    overlapping = [f"{kind}:{split}:{words}:{folder}" for words in ("0-1", "1")]
    assert names(read_images(overlapping, SHAPE)) == whole
    for words, complaint in (("1-0", "smaller number first"), ("0-2", "has 2 images; wanted numbers from 0 to 1")):
        with pytest.raises(UsageError, match=complaint):
            read_images([f"{kind}:{split}:{words}:{folder}"], SHAPE)


def test_a_run_on_more_images_goes_on_from_one_on_fewer(aureole, case, tmp_path):
    reference, net, _, _ = case
    kind, split, folder = reference.split(":", 2)
    words = ("--method", "fgsm", "--goal", "top-k-untargeted", "--k", "1", "--out", tmp_path / "out")
    progress = tmp_path / "out/progress.jsonl"
    assert aureole("attack", net, f"{kind}:{split}:0:{folder}", *words).code == 0
    first = progress.read_text()
    assert aureole("attack", net, reference, *words).code == 0
    both = progress.read_text()
    assert both.startswith(first)
    assert [len(text.strip().split("\n\n")) for text in (first, both)] == [1, 2]


def many(folder, count):
    """VOC with that many pictures, no two alike, each of a cat, most of them red."""
    kind, labels, first, second = voc(folder)
    listed = [f"{place:06}" for place in range(count)]
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(listed))
    annotation = (folder / "Annotations/000001.xml").read_text()
    for place, name in enumerate(listed):
        picture(folder / f"JPEGImages/{name}.jpg", (230, 20, 2 * place))
        (folder / f"Annotations/{name}.xml").write_text(annotation)
    return f"{kind}:{folder}", labels, first, second


class Held:
    """Counts the pictures that are in memory together, of those that the wrapped function returned."""

    def __init__(self, honest):
        self.honest, self.now, self.most = honest, 0, 0

    def __call__(self, *arguments):
        pixels = self.honest(*arguments)
        self.now += 1
        self.most = max(self.most, self.now)
        weakref.finalize(pixels, self.release)
        return pixels

    def release(self):
        self.now -= 1


def test_no_more_images_are_held_than_are_attacked_or_drawn_together(aureole, tmp_path, monkeypatch):
    batch, count = 2, 3 * MOST_ROWS
    reference, labels, first, second = many(tmp_path / "set", count)
    net = network(tmp_path / "net.onnx", labels, first, second)
    held, honest_stack, stacked = Held(readers.read_pixels), np.stack, []

    def stack(arrays, *arguments, **options):
        whole = honest_stack(arrays, *arguments, **options)
        if whole.shape[1:] == SHAPE:
            stacked.append(len(whole))
        return whole

    monkeypatch.setattr(readers, "read_pixels", held)
    monkeypatch.setattr(np, "stack", stack)
    assert len(read_images([reference], SHAPE)) == count
    assert held.most <= 2
    words = ("--method", "fgsm", "--goal", "top-k-untargeted", "--k", "1", "--norm", "linf", "--eps", "0.6")
    for _ in range(2):
        ended = aureole("attack", net, reference, *words, "--batch", batch, "--out", tmp_path / "out", "--json")
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["finished"] == count
    # The grid draws its few rows at once.
    assert held.most <= MOST_ROWS + batch
    assert stacked
    assert max(stacked) == batch


def test_the_summary_is_that_of_the_images(aureole, case, tmp_path):
    reference, net, _, _ = case
    words = ("--method", "bim", "--goal", "top-k-untargeted", "--k", "1", "--norm", "linf", "--eps", "0.6")
    report = json.loads(aureole("attack", net, reference, *words, "--out", tmp_path / "out", "--json").out)
    rows = parquet.read_table(tmp_path / "out/results.parquet").to_pylist()
    clean, images = (
        np.stack([np.load(tmp_path / "out" / row[name]) for row in rows]) for name in ("image", "adversarial")
    )
    values = {name: each["value"] for name, each in report["values"].items()}
    for norm in Norm:
        assert values[f"{norm} (successes)"] == norms(clean, images, norm).mean()
    assert values["APer (l2, all)"] == values["APer (l2, successes)"] == norms(clean, images, Norm.L2).mean()
    assert values["RMSD of 255"] == rmsd(clean, images).mean()
    assert None not in values.values()


def test_a_picture_that_cannot_be_read_is_named_before_any_work(aureole, case, tmp_path):
    reference, net, _, _ = case
    path = Path(reference.split(":", 2)[2])
    broken = sorted(path.rglob("*.jpg"))[-1]
    broken.write_bytes(b"no picture")
    ended = aureole("attack", net, reference, "--out", tmp_path / "out")
    assert ended.code == ExitCode.DATA
    assert ended.err.count(str(broken)) == 1
    assert "cannot be read as a picture (no known picture format)" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_that_changes_meanwhile_is_refused(case):
    reference, _, _, _ = case
    image = read_images([reference], SHAPE)[0]
    kept = image.pixels
    np.testing.assert_array_equal(image.pixels, kept)
    for path in Path(reference.split(":", 2)[2]).rglob("*.jpg"):
        picture(path, (1, 2, 3))
    with pytest.raises(InputError, match="has changed since this command began"):
        _ = image.pixels


def test_a_missing_split_is_named_once_with_those_that_exist(aureole, halves_rgb, tmp_path):
    voc(tmp_path / "voc")
    coco(tmp_path / "coco")
    (tmp_path / "voc/ImageSets/Main/cat_test.txt").write_text("000001 1\n")
    missing = {"voc": "voc/ImageSets/Main/val.txt", "coco": "coco/annotations/instances_val.json"}
    there = {"voc": "test", "coco": "val2017"}
    for kind, path in missing.items():
        ended = aureole("attack", halves_rgb, f"{kind}:val:{tmp_path / kind}")
        assert ended.code == ExitCode.DATA
        assert ended.err.count(str(tmp_path / path)) == 1
        assert "cannot be read (No such file or directory)" in ended.err
        assert f"splits there: {there[kind]}\n" in ended.err


@pytest.fixture
def halves_rgb(tmp_path):
    """A network for pictures of three channels."""
    return network(tmp_path / "rgb.onnx", 3, 0, 1)


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
