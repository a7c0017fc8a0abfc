"""Reads multi-label image sets in their official folder layouts: label sets, and the pixels of each object.

- `labelled`: what every reader returns. `outlines`: where an object lies, as boxes, polygons, run lengths or indexed pictures.
- `voc`, `coco`, `nus_wide`: one layout each.

Readers check annotations as they read them and open no image; images are opened one by one by `read_pixels`.
"""

from nets.readers.coco import read_coco
from nets.readers.labelled import ImageObject, LabelledImage, LabelledImages, read_pixels
from nets.readers.nus_wide import read_nus_wide
from nets.readers.outlines import cover
from nets.readers.voc import read_voc

__all__ = [
    "ImageObject",
    "LabelledImage",
    "LabelledImages",
    "cover",
    "read_coco",
    "read_nus_wide",
    "read_pixels",
    "read_voc",
]
