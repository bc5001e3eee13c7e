"""The size of the frames in AV1 data (AV1 specification 1.0.0, sections 5.3 to 5.5).

The container of an AVIF states a size too, but the decoder allocates what the AV1 data says.
"""

from training.data.image_errors import damaged_header, too_costly

MAX_UNITS = 2000
"""Maximum number of units (OBUs) in one image. An ordinary image has fewer than 10, or one for each
of up to 64 tiles."""
MAX_FRAMES = 8
"""Maximum number of frames in one image. More than one is used only for layers of quality."""

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6


class _Bits:
    def __init__(self, data: bytes):
        self._number, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise damaged_header()
        return self._number >> self._left & (1 << count) - 1


def decoded_pixels(data: bytes) -> int:
    """Number of pixels that a decoder computes for one AV1 image; raises ImageError."""
    position, num_frames, largest = 0, 0, 0
    for _ in range(MAX_UNITS):
        if position >= len(data):
            return largest * max(1, num_frames)
        header = data[position]
        kind, has_extension, has_size = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
        position += 1 + has_extension
        num_bytes = len(data) - position
        if has_size:
            num_bytes, position = _leb128(data, position)
        if kind == _SEQUENCE:
            width, height = _largest_frame(_Bits(data[position : position + min(num_bytes, 500)]))
            largest = max(largest, width * height)
        num_frames += kind in (_FRAME_HEADER, _FRAME)
        if num_frames > MAX_FRAMES:
            raise too_costly(f"an image of the AVIF has more than {MAX_FRAMES} frames")
        position += num_bytes
    raise too_costly(f"an image of the AVIF has more than {MAX_UNITS:,} units")


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number of up to 8 bytes (section 4.10.5), and the position after it."""
    value = 0
    for number in range(8):
        byte = data[position + number]
        value |= (byte & 127) << 7 * number
        if not byte & 128:
            return value, position + number + 1
    raise damaged_header()


def _largest_frame(bits: _Bits) -> tuple[int, int]:
    """The largest width and height in a sequence header (section 5.5.1)."""
    bits.read(4)  # profile, still picture
    if bits.read(1):  # the short header of still pictures
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits, has_decoder_model = 0, 0
    if bits.read(1):  # timing
        bits.read(64)
        if bits.read(1):
            num_zeros = 0
            while not bits.read(1):
                num_zeros += 1
            bits.read(num_zeros)
        has_decoder_model = bits.read(1)
        if has_decoder_model:
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_initial_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:  # the level
            bits.read(1)
        if has_decoder_model and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_initial_delay and bits.read(1):
            bits.read(4)
