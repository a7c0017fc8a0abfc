"""Reads images, widths and masks from PNG and NPY files or from the shipped test images, and writes images."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32
from PIL import Image

from aureole.exits import MissingFileError, OutputError, UsageError
from nets.files import write_bytes
from verifier.errors import InputError
from verifier.region import check_image

SHIPPED_PREFIX = "shipped:"
_BYTE = 255
# Pillow's modes without a palette or transparency, and the value that means 1.0 in each.
_FULL_SCALE = {"1": 1, "L": _BYTE, "RGB": _BYTE, "I;16": 65_535, "I;16B": 65_535, "I;16L": 65_535}


def read_image(reference: str, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """The image a command-line reference names, as float32 of the network's input shape, in [0, 1].

    PNG pixels are divided by their full scale (255 or 65,535). NPY files hold floating-point values in [0, 1]; a
    float64 file is rounded to float32, the type a network reads. Axes of length 1 may be missing or added in front.

    Args:
        reference: A PNG or NPY file, or `shipped:N` for shipped test image N.
        shape: The network's input shape.

    Raises:
        MissingFileError: There is no such file.
        UsageError: N is no shipped image.
        InputError: The file is damaged, or of another shape, type or range.
    """
    if reference.startswith(SHIPPED_PREFIX):
        from nets import shipped

        images = shipped.images().images
        pixels = images[shipped_index(reference, len(images))]
    else:
        pixels = _read_pixels(Path(reference))
    if pixels.dtype.kind == "f":
        pixels = fit_shape(pixels, shape)
    return check_image(pixels, shape).astype(np.float32)


def shipped_index(reference: str, count: int) -> int:
    """The N of `shipped:N`.

    Raises:
        UsageError: N is not a number from 0 to count - 1.
    """
    text = reference.removeprefix(SHIPPED_PREFIX)
    if not text.isdecimal() or int(text) >= count:
        raise UsageError(f"image {reference!r}: wanted {SHIPPED_PREFIX}0 to {SHIPPED_PREFIX}{count - 1}")
    return int(text)


def fit_shape(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`pixels` with axes of length 1 added or removed in front until it has `shape`'s rank; other shapes unchanged."""
    while pixels.ndim > len(shape) and pixels.shape[0] == 1:
        pixels = pixels[0]
    while pixels.ndim < len(shape) and shape[len(shape) - 1 - pixels.ndim] == 1:
        pixels = pixels[None]
    return pixels


def read_widths(path: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Per-pixel widths from an NPY file, float64 of the image's shape; finite and >= 0.

    Raises:
        MissingFileError: There is no such file.
        InputError: Not an NPY file of floating-point numbers of that shape, or a width is NaN, infinite or negative.
    """
    if path.suffix.lower() != ".npy":
        raise InputError(f"widths {path}: got a {path.suffix or 'suffixless'} file, wanted .npy with one width a pixel")
    widths = _read_npy(path)
    if widths.dtype.kind != "f":
        raise InputError(f"widths {path}: got dtype {widths.dtype}, wanted float32 or float64")
    widths = fit_shape(widths, shape)
    if widths.ndim == len(shape) - 1 and widths.shape == shape[1:]:
        widths = np.broadcast_to(widths, shape)
    if widths.shape != shape:
        raise InputError(f"widths {path}: got shape {widths.shape}, wanted {shape} as the image")
    if not np.isfinite(widths).all() or (widths < 0).any():
        raise InputError(f"widths {path}: some are NaN, infinite or negative, wanted numbers >= 0")
    return widths.astype(np.float64)


def read_mask(path: Path, shape: tuple[int, ...]) -> Bool[np.ndarray, "height width"]:
    """A pixel mask: PNG pixels above 0, or the true (or non-zero) entries of an NPY array.

    Raises:
        MissingFileError: There is no such file.
        InputError: The file is damaged, marks no pixel, holds NaN, or is not height x width of the image `shape`.
    """
    pixels = _read_pixels(path)
    while pixels.ndim > 2 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim != 2 or pixels.shape != shape[-2:]:
        raise InputError(f"mask {path}: got shape {pixels.shape}, wanted {shape[-2:]}, the image's height and width")
    if pixels.dtype.kind not in "biuf":
        raise InputError(f"mask {path}: got dtype {pixels.dtype}, wanted booleans or numbers")
    if pixels.dtype.kind == "f" and np.isnan(pixels).any():
        raise InputError(f"mask {path}: some entries are NaN, wanted booleans or numbers")
    mask = pixels != 0
    if not mask.any():
        raise InputError(f"mask {path}: no pixel is marked, wanted the pixels of the perturbed object")
    return mask


def png_bytes(image: np.ndarray) -> bytes | None:
    """The image as an 8-bit PNG, rounded to the nearest of 256 values; None unless it has 1 or 3 channels."""
    pixels = np.rint(np.clip(np.asarray(image, dtype=np.float64), 0, 1) * _BYTE).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)).save(buffer, format="PNG")
    return buffer.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """The array as the contents of an NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Writes the file whole or not at all; missing folders are made.

    Raises:
        OutputError: The system does not let us.
    """
    try:
        write_bytes(path, content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error


def _read_pixels(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _read_npy(path)
    if suffix == ".png":
        return _read_png(path)
    _check_exists(path)
    raise InputError(f"{path}: got a {suffix or 'suffixless'} file, wanted .png or .npy")


def _read_npy(path: Path) -> np.ndarray:
    _check_exists(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable NPY file ({_first_line(error)})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: holds several arrays (NPZ), wanted one; save it with numpy.save")
    return array


def _read_png(path: Path) -> Float32[np.ndarray, "channels height width"]:
    _check_exists(path)
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()
            mode, pixels = picture.mode, np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable PNG file ({_first_line(error)})") from error
    if mode not in _FULL_SCALE:
        raise InputError(f"{path}: got a PNG of mode {mode}, wanted grayscale or RGB without palette or transparency")
    scaled = pixels.astype(np.float32) / np.float32(_FULL_SCALE[mode])
    return scaled[None] if scaled.ndim == 2 else np.moveaxis(scaled, 2, 0)


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise MissingFileError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, wanted a file")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
