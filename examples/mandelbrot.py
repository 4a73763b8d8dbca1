"""Draw the Mandelbrot set: a lambda mapped over the rows of a picture.

The rows take very different times, since those through the middle never escape. ``map`` yields them in order all the
same, so the picture is compressed and written while later rows are still being computed. The PNG is made with nothing
but ``zlib`` and ``struct``.

    python mandelbrot.py --width 1200 --out set.png
"""

from __future__ import annotations

import argparse
import struct
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from gpool import GroupedPool

DEPTH = 64


def colour(steps: int) -> bytes:
    """Turn an escape time into red, green and blue."""
    if steps == DEPTH:
        return b"\0\0\0"
    share = steps / DEPTH
    return bytes((round(255 * share**0.5), round(255 * share), round(128 * (1 - share))))


def escape_time(point: complex) -> int:
    """Return after how many steps a point leaves the circle of radius 2; DEPTH if it stays."""
    if abs(point + 1) < 0.25 or abs(1 - (1 - 4 * point) ** 0.5) < 1:
        return DEPTH  # inside the big bulb or the heart: it never leaves
    z = 0j
    for step in range(DEPTH):
        if abs(z) > 2:
            return step
        z = z * z + point
    return DEPTH


def row(y: int, width: int, height: int) -> bytes:
    """Compute one row of the picture."""
    imaginary = 2.4 * (y + 0.5) / height - 1.2
    return b"".join(colour(escape_time(complex(3.2 * x / width - 2.3, imaginary))) for x in range(width))


def chunk(kind: bytes, data: bytes) -> bytes:
    """Wrap data as PNG wants it: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, rows: Iterable[bytes], width: int, height: int) -> int:
    """Write rows of red, green and blue as they arrive; return the size of the file."""
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        squeeze = zlib.compressobj()
        for pixels in rows:
            packed = squeeze.compress(b"\0" + pixels)  # the 0 says: this row is not filtered
            if packed:
                file.write(chunk(b"IDAT", packed))
        file.write(chunk(b"IDAT", squeeze.flush()) + chunk(b"IEND", b""))
        return file.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the Mandelbrot set with a pool of processes.")
    parser.add_argument("--out", type=Path, default=Path("mandelbrot.png"), help="the file to write")
    parser.add_argument("--width", type=int, default=640, help="pixels in a row (default 640)")
    chosen = parser.parse_args()
    width, height = chosen.width, chosen.width * 3 // 4

    began = time.monotonic()
    with GroupedPool() as pool:
        rows = pool.map(lambda y: row(y, width, height), range(height))
        size = write_png(chosen.out, rows, width, height)
    print(f"{width} × {height} pixels in {time.monotonic() - began:.1f} s, {size:,} bytes in {chosen.out}")


main()
