"""Every kind of file becomes an upright RGB square, or an error that helps."""

import io
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from training.data.images import (
    ImageError,
    Picture,
    Pixels,
    TarMember,
    canvas_px,
    centre,
    check_picture,
    from_pillow,
    open_picture,
    read_square,
    to_canvas,
    to_square,
    to_thumbnail,
)

SIZE = 67


def encode(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def mosaic(width: int, height: int) -> Image.Image:
    """Blocks of random colours, 8 pixels wide: all corners differ, and a JPEG keeps the colours."""
    blocks = np.random.default_rng(0).integers(
        0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8
    )
    return Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)[:height, :width])


def plain(colour: Any, mode: str = "RGB", size: tuple[int, int] = (90, 80)) -> Image.Image:
    return Image.new(mode, size, colour)


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def mean_colour(data: bytes) -> list[int]:
    return [int(value) for value in read_square(data, SIZE).mean((0, 1)).round()]


def refusal(source: bytes | Path, **limits: int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_square(source, SIZE, **limits)
    assert "\n" not in str(caught.value)
    return caught.value


STORE: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left, top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left, bottom
}
"""How a camera stores an upright picture for each EXIF orientation. The comments name the sides of
the upright picture that are stored as first row and first column (EXIF 2.3, section 4.6.4)."""


def stored_as(orientation: int, upright: Image.Image) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(STORE[orientation](np.asarray(upright))))


@pytest.mark.parametrize("orientation", STORE)
def test_every_exif_orientation_gives_the_same_square(orientation: int) -> None:
    upright = mosaic(120, 80)
    stored = stored_as(orientation, upright)
    picture = open_picture(encode(stored, exif=with_orientation(orientation)), size=SIZE)
    assert (picture.width, picture.height) == (120, 80)
    np.testing.assert_array_equal(to_square(picture, SIZE), read_square(encode(upright), SIZE))


def encode_turned(upright: Image.Image, file_format: str) -> bytes:
    """A file that stores the picture turned by 90 degrees, with EXIF orientation 6."""
    options: dict[str, Any] = {"exif": with_orientation(6), "quality": 95}
    if file_format == "TIFF":
        options = {"tiffinfo": {0x0112: 6}}
    return encode(stored_as(6, upright), file_format, **options)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_other_formats_are_set_upright_too(file_format: str) -> None:
    upright = mosaic(120, 80)
    picture = open_picture(encode_turned(upright, file_format), size=SIZE)
    assert (picture.width, picture.height) == (120, 80)
    # A wrong turn gives a difference of about 80.
    assert mean_difference(to_square(picture, SIZE), read_square(encode(upright), SIZE)) < 20


def test_a_picture_with_odd_metadata_is_still_turned_and_read() -> None:
    exif = with_orientation(6)
    exif[0x0128] = 2  # the unit of the resolution
    # EXIF wants a SHORT here. With a LONG, Pillow cannot write the metadata again.
    metadata = exif.tobytes().replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x04")
    picture = open_picture(encode(mosaic(120, 80), "JPEG", exif=metadata), size=SIZE)
    assert (picture.width, picture.height) == (80, 120)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_a_picture_with_rubbish_as_metadata_is_read_unturned() -> None:
    picture = open_picture(encode(mosaic(120, 80), "JPEG", exif=b"Exif\0\0MM\0*rubbish"), size=SIZE)
    assert (picture.width, picture.height) == (120, 80)


def test_greyscale_becomes_three_equal_channels() -> None:
    grey = mosaic(90, 80).convert("L")
    square = read_square(encode(grey), SIZE)
    rgb = Image.merge("RGB", (grey, grey, grey))
    np.testing.assert_array_equal(square, read_square(encode(rgb), SIZE))


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    red = encode(plain((0, 255, 255, 0), "CMYK"), "JPEG")
    assert mean_colour(red) == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_to_eight(file_format: str) -> None:
    eight = np.asarray(mosaic(90, 80).convert("L"))
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    np.testing.assert_array_equal(
        read_square(encode(sixteen, file_format), SIZE),
        read_square(encode(Image.fromarray(eight)), SIZE),
    )


def test_one_bit_becomes_black_and_white() -> None:
    assert mean_colour(encode(plain(1, "1"))) == [255, 255, 255]
    assert mean_colour(encode(plain(0, "1"))) == [0, 0, 0]


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_is_laid_on_white(file_format: str) -> None:
    image = plain(0, "P")
    image.putpalette([200, 10, 10, 20, 180, 20])
    image.paste(1, (45, 0, 90, 80))
    square = read_square(encode(image, file_format, transparency=0), SIZE)
    assert square[:, :20].reshape(-1, 3).min() == 255
    assert square[0, -1].tolist() == [20, 180, 20]


def test_half_transparent_black_is_laid_on_white() -> None:
    assert mean_colour(encode(plain((0, 0, 0, 51), "RGBA"))) == [204, 204, 204]
    assert mean_colour(encode(plain((0, 51), "LA"))) == [204, 204, 204]


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_an_animation_gives_its_first_frame(file_format: str) -> None:
    others = [plain("blue"), plain("lime")]
    options = {"save_all": True, "append_images": others, "duration": 100}
    data = encode(plain("red"), file_format, **options)
    assert mean_colour(data) == pytest.approx([255, 0, 0], abs=4)


def test_an_empty_file_is_called_empty() -> None:
    error = refusal(b"")
    assert error.reason == "empty"
    assert "0 bytes" in str(error)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.005, 0.5, 0.95])
def test_a_truncated_image_is_called_cut_off(file_format: str, share: float) -> None:
    whole = encode(mosaic(120, 80), file_format)
    error = refusal(whole[: max(12, int(share * len(whole)))])
    assert error.reason == "truncated"
    assert "cut off" in str(error)


@pytest.mark.parametrize("data", [b"hello", b"path,label\ncat.jpg,cat\n", bytes(1000)])
def test_a_file_that_is_not_an_image_is_refused_with_the_supported_formats(data: bytes) -> None:
    error = refusal(data)
    assert error.reason == "not-an-image"
    assert "use JPEG, PNG" in str(error)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n%", "a PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<svg/>", "an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC image"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
        (b"8BPS\0\x01", "a Photoshop file"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
    ],
)
def test_the_error_names_other_kinds_of_files(data: bytes, kind: str) -> None:
    error = refusal(data)
    assert error.reason == "unsupported"
    assert f"this is {kind}; use JPEG" in str(error)


def test_floating_point_pixels_are_refused_since_their_range_is_unknown() -> None:
    assert refusal(encode(plain(0.5, "F"), "TIFF")).reason == "unsupported"


def test_too_many_pixels_are_refused_from_the_header_alone() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))
    error = refusal(bomb)  # decoding it would take 30 GB
    assert error.reason == "too-many-pixels"
    assert "100000 x 100000 = 10,000,000,000 pixels; at most 50,000,000" in str(error)


def test_the_limit_itself_is_accepted_and_one_pixel_more_is_not() -> None:
    data = encode(plain("red", size=(100, 80)))
    assert read_square(data, SIZE, max_pixels=8000).shape == (SIZE, SIZE, 3)
    assert refusal(data, max_pixels=7999).reason == "too-many-pixels"


def test_the_error_says_why_a_path_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would never end
    for path, why in (
        (tmp_path / "absent.png", "No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        error = refusal(path)
        assert error.reason == "unreadable"
        assert why in str(error)
    assert refusal(Path("null\0byte.png")).reason == "unreadable"


def test_a_path_and_its_bytes_give_the_same_square(tmp_path: Path) -> None:
    file = tmp_path / "mosaic.png"
    mosaic(120, 80).save(file)
    np.testing.assert_array_equal(read_square(file, SIZE), read_square(file.read_bytes(), SIZE))


@pytest.mark.parametrize(("size", "canvas"), [(224, 256), (67, 77), (128, 146), (1024, 1170)])
def test_canvas_and_square_have_the_ratio_256_to_224(size: int, canvas: int) -> None:
    assert canvas_px(size) == canvas


def test_the_square_of_224_is_the_middle_of_the_short_side_resized_to_256() -> None:
    wide = mosaic(600, 256)  # the short side has 256 pixels, so nothing is resized
    picture = open_picture(encode(wide), size=224)
    np.testing.assert_array_equal(to_canvas(picture, 224), np.asarray(wide)[:, 172:428])
    np.testing.assert_array_equal(to_square(picture, 224), np.asarray(wide)[16:240, 188:412])


def test_the_short_side_is_resized_and_the_long_side_cropped() -> None:
    tall = Image.fromarray(np.asarray(plain("white", size=(512, 2048))).copy())
    tall.paste("red", (0, 768, 512, 1280))  # the central square
    canvas = to_canvas(open_picture(encode(tall), size=224), 224)
    assert canvas.shape == (256, 256, 3)
    assert canvas[1:-1].reshape(-1, 3).mean(0).tolist() == [255, 0, 0]


def test_the_centre_is_cut_from_every_image_of_a_batch() -> None:
    canvases = np.arange(2 * 6 * 6 * 3, dtype=np.uint8).reshape(2, 6, 6, 3)
    np.testing.assert_array_equal(centre(canvases, 2), canvases[:, 2:4, 2:4])


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes_have_a_square_and_a_thumbnail(shape: tuple[int, int]) -> None:
    picture = open_picture(encode(plain((90, 80, 70), size=shape)), size=SIZE)
    assert to_square(picture, SIZE).reshape(-1, 3).mean(0).tolist() == [90, 80, 70]
    thumbnail = Image.open(io.BytesIO(to_thumbnail(picture)))
    assert max(thumbnail.size) == min(192, max(shape))


def test_a_large_jpeg_decoded_at_reduced_scale_looks_as_if_decoded_whole() -> None:
    large = mosaic(200, 150).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encode(large, "JPEG", quality=90)
    picture = open_picture(data, size=SIZE)
    assert (picture.width, picture.height) == (1600, 1200)
    assert picture.image.size == (800, 600)
    whole = Picture(Image.open(io.BytesIO(data)).convert("RGB"), 1600, 1200)
    assert mean_difference(to_square(picture, SIZE), to_square(whole, SIZE)) < 2


def test_a_thumbnail_is_192_pixels_on_its_longer_side_and_never_enlarged() -> None:
    assert thumbnail_of(encode(mosaic(800, 400))).size == (192, 96)
    assert thumbnail_of(encode(mosaic(50, 40))).size == (50, 40)


def test_a_thumbnail_is_upright() -> None:
    stored = stored_as(6, mosaic(160, 80))
    upright = thumbnail_of(encode(stored, exif=with_orientation(6)))
    expected = thumbnail_of(encode(mosaic(160, 80)))
    np.testing.assert_array_equal(np.asarray(upright), np.asarray(expected))
    assert upright.getexif().get(0x0112) is None  # otherwise a browser would turn it once more


def opened(data: bytes) -> Image.Image:
    """The image as a user of Pillow has it: its pixels are not decoded yet."""
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_pillow_image_is_set_upright_as_its_file_is(file_format: str, is_loaded: bool) -> None:
    data = encode_turned(mosaic(120, 80), file_format)
    image = opened(data)
    if is_loaded:
        image.load()
    picture = from_pillow(image)
    assert (picture.width, picture.height) == (120, 80)
    np.testing.assert_array_equal(to_square(picture, SIZE), read_square(data, SIZE))


@pytest.mark.parametrize("orientation", STORE)
def test_a_pillow_image_of_any_orientation_gives_the_same_square(orientation: int) -> None:
    upright = mosaic(120, 80)
    data = encode(stored_as(orientation, upright), exif=with_orientation(orientation))
    square = to_square(from_pillow(opened(data)), SIZE)
    np.testing.assert_array_equal(square, read_square(encode(upright), SIZE))


def with_palette() -> bytes:
    image = plain(0, "P")
    image.putpalette([200, 10, 10, 20, 180, 20])
    image.paste(1, (45, 0, 90, 80))
    return encode(image, transparency=0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(with_palette(), id="palette"),
        pytest.param(encode(plain((0, 0, 0, 51), "RGBA")), id="RGBA"),
        pytest.param(encode(plain((0, 51), "LA")), id="LA"),
        pytest.param(encode(mosaic(90, 80).convert("L")), id="grey"),
        pytest.param(encode(plain(1, "1")), id="one bit"),
        pytest.param(encode(Image.fromarray(np.full((80, 90), 40_000, np.uint16))), id="16 bits"),
        pytest.param(encode(plain((0, 255, 255, 0), "CMYK"), "TIFF"), id="CMYK"),
    ],
)
def test_a_pillow_image_is_converted_to_rgb_as_its_file_is(data: bytes) -> None:
    square = to_square(from_pillow(opened(data)), SIZE)
    np.testing.assert_array_equal(square, read_square(data, SIZE))


def test_an_image_made_in_memory_is_taken_as_it_is() -> None:
    image = mosaic(120, 80)
    picture = from_pillow(image)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(image))
    assert (picture.width, picture.height) == (120, 80)


def test_from_pillow_does_not_change_the_callers_image() -> None:
    image = opened(encode_turned(mosaic(120, 80), "PNG"))
    from_pillow(image)
    assert image.size == (80, 120)
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "BMP"])
def test_a_pillow_image_of_a_file_that_is_cut_off_is_refused(file_format: str) -> None:
    whole = encode(mosaic(120, 80), file_format)
    image = opened(whole[: len(whole) * 3 // 4])  # Pillow has read no more than the header
    error = r"cut off or damaged \(.+\); use a complete copy of the file"
    with pytest.raises(ImageError, match=error) as caught:
        from_pillow(image)
    assert caught.value.reason == "truncated"


def test_a_pillow_image_of_floating_point_pixels_is_refused_as_its_file_is() -> None:
    with pytest.raises(ImageError, match="floating-point pixels") as caught:
        from_pillow(plain(0.5, "F"))
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_a_pillow_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} pixels") as caught:
        from_pillow(Image.new("RGB", size))
    assert caught.value.reason == "empty"


@pytest.mark.parametrize("size", [67, 224])
def test_every_photograph_becomes_an_upright_rgb_square(
    size: int, shared_data: Callable[[str], Path]
) -> None:
    for number, file in enumerate(sample(shared_data("clothing/validation"))):
        square = read_square(file, size)
        assert square.shape == (size, size, 3)
        assert square.dtype == np.uint8
        orientation = 1 + number % 8
        with Image.open(file) as photograph:
            turned = stored_as(orientation, photograph.convert("RGB"))
        data = encode(turned, exif=with_orientation(orientation), compress_level=1)
        np.testing.assert_array_equal(read_square(data, size), square)


def test_a_photograph_has_the_same_pixels_from_a_path_from_bytes_and_from_a_tar_file(
    tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    files = sample(shared_data("clothing/validation"))
    with tarfile.open(tmp_path / "photographs.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
    with tarfile.open(tmp_path / "photographs.tar") as tar:
        headers = tar.getmembers()
    for file, header in zip(files, headers, strict=True):
        member = TarMember(tmp_path / "photographs.tar", header.offset_data, header.size)
        square = read_square(file, 224)
        np.testing.assert_array_equal(read_square(file.read_bytes(), 224), square)
        np.testing.assert_array_equal(read_square(member, 224), square)


def sample(folder: Path, count: int = 16) -> list[Path]:
    """Every n-th photograph, so that all classes are among them."""
    files = sorted(folder.rglob("*.jpg"))
    return files[:: len(files) // count]


def thumbnail_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(to_thumbnail(open_picture(data, size=SIZE))))


def mean_difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_a_picture_that_takes_too_much_memory_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageError) as caught:
        check_picture(encode(plain(0, "L", (7000, 7000)), "WEBP", lossless=True), size=SIZE)
    assert caught.value.reason == "too-costly"
    assert "MB" in str(caught.value)


def test_a_picture_with_too_many_bytes_per_pixel_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 6000, 6000, 16, 6, 0, 0, 0)
    body = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    error = refusal(data)
    assert error.reason == "too-costly"
    assert "288,006,000 bytes" in str(error)


def test_a_checked_picture_is_decoded_without_a_second_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode(mosaic(120, 80))
    checked = check_picture(data, size=SIZE)
    monkeypatch.setattr("training.data.images.check_file", None)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(open_picture(checked, size=SIZE).image, np.asarray(expected))


def test_the_memory_of_a_picture_is_lent_while_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lent: list[int] = []

    class Budget:
        @contextmanager
        def lend(self, num_bytes: int) -> Iterator[None]:
            lent.append(num_bytes)
            yield

    monkeypatch.setattr("training.data.memory_budget.decoding", Budget())
    read_square(encode(plain((1, 2, 3, 4), "RGBA", (1000, 900))), SIZE)
    read_square(encode(plain("red", size=(8000, 4000)), "JPEG"), SIZE)
    assert lent == [8 * 1000 * 900, 8 * 1000 * 500]


PEAK = """
import re, sys
from pathlib import Path
from training.data.images import open_picture, to_square, to_thumbnail

def memory(field):
    return int(re.findall(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[0]) * 1024

content = Path(sys.argv[1]).read_bytes()
rest = memory("VmRSS")
picture = open_picture(content, size=224)
to_square(picture, 224), to_thumbnail(picture)
del picture
print(memory("VmHWM") - rest, memory("VmRSS") - rest)
"""


@pytest.mark.slow  # each file has 50 megapixels
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("mode", "width", "height"),
    [
        ("I;16", 7071, 7071),
        ("RGBA", 7071, 7070),
        ("RGBA", 50_000, 999),
        ("LA", 999, 50_000),
        ("P", 7071, 7071),
        ("1", 50_000_000, 1),
    ],
)
def test_decoding_a_picture_of_50_megapixels_takes_less_than_300_mb_and_gives_them_back(
    mode: str, width: int, height: int, tmp_path: Path
) -> None:
    image = Image.new(mode, (width, height))
    options: dict[str, Any] = {"transparency": bytes(256)} if mode == "P" else {}
    file = tmp_path / "large.png"
    image.save(file, compress_level=1, **options)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(file)],
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    )
    peak, left = map(int, done.stdout.split())
    assert peak < 300_000_000
    assert left < 100_000_000
