"""DM3, DM4, SER and EMD files, put together number by number as the formats' descriptions have it."""

import json
import struct

import h5py
import numpy as np

# DataType of DigitalMicrograph, by numpy's names, and the types of its tags.
DM_PIXELS = {"int16": 1, "float32": 2, "uint8": 6, "int32": 7, "int8": 9, "uint16": 10, "uint32": 11, "float64": 12}
DM_TAGS = {
    "int16": 2,
    "int32": 3,
    "uint16": 4,
    "uint32": 5,
    "float32": 6,
    "float64": 7,
    "bool": 8,
    "int8": 10,
    "uint8": 8,
}
SER_PIXELS = {"uint8": 1, "uint16": 2, "uint32": 3, "int8": 4, "int16": 5, "int32": 6, "float32": 7, "float64": 8}


class DmWriter:
    """Spells tags; `long` is the format of numbers that DM4 has with 64 bits, `order` that of values."""

    def __init__(self, version=3, order="<"):
        self.version, self.order = version, order
        self.long = ">I" if version == 3 else ">Q"

    def count(self, number):
        return struct.pack(self.long, number)

    def entry(self, kind, name, content):
        name = name.encode("latin-1")
        length = b"" if self.version == 3 else self.count(len(content))
        return struct.pack(">BH", kind, len(name)) + name + length + content

    def value(self, value):
        if isinstance(value, str):
            value = np.frombuffer(value.encode("utf-16-le"), np.uint16)
        if isinstance(value, np.ndarray):
            about = [20, DM_TAGS[value.dtype.name], value.size]
            data = value.astype(value.dtype.newbyteorder(self.order)).tobytes()
        elif isinstance(value, tuple):  # a struct of two numbers, as points are
            about, data = [15, 0, 2, 0, 6, 0, 6], struct.pack(f"{self.order}2f", *value)
        elif isinstance(value, float):
            about, data = [6], struct.pack(f"{self.order}f", value)
        else:
            about, data = [5], struct.pack(f"{self.order}I", value)
        return b"%%%%" + self.count(len(about)) + b"".join(map(self.count, about)) + data

    def group(self, entries):
        """A group of (name, value) pairs; a value that is a list is a group itself."""
        spelt = []
        for name, value in entries:
            is_group = isinstance(value, list)
            spelt.append(self.entry(20 if is_group else 21, name, self.group(value) if is_group else self.value(value)))
        return b"\1\0" + self.count(len(spelt)) + b"".join(spelt)

    def file(self, entries):
        body = self.group(entries)
        little = struct.pack(">I", 1 if self.order == "<" else 0)
        return struct.pack(">I", self.version) + self.count(len(body)) + little + body + bytes(8)


def dm_image(pixels, scales=(), kind=None, form=""):
    """An image as DigitalMicrograph lists it; `scales` are the size and unit of x, y, ..."""
    calibrations = [("", [("Origin", 0.0), ("Scale", float(scale)), ("Units", unit)]) for scale, unit in scales]
    data = [
        ("Calibrations", [("Brightness", [("Scale", 1.0)]), ("Dimension", calibrations)]),
        ("Data", pixels.ravel()),
        ("DataType", DM_PIXELS[pixels.dtype.name] if kind is None else kind),
        ("Dimensions", [("", side) for side in reversed(pixels.shape)]),
        ("PixelDepth", pixels.dtype.itemsize),
    ]
    return [("ImageData", data), ("ImageTags", [("Meta Data", [("Format", form)]), ("Place", (1.0, 2.0))])]


def dm_bytes(*images, version=3, order="<", thumbnail=True):
    """A file of images, with a thumbnail before them."""
    small = [("", dm_image(np.zeros((4, 4), np.uint8), kind=6))] if thumbnail else []
    listed = small + [("", image) for image in images]
    thumbnails = [("Thumbnails", [("", [("ImageIndex", 0), ("SourceSize_Pixels", (3.0, 4.0))])])] if thumbnail else []
    return DmWriter(version, order).file([("ApplicationBounds", (0.0, 9.0)), ("ImageList", listed), *thumbnails])


def ser_bytes(planes, size_m=(1e-9, 1e-9), kind=0x4122, version=0x0210):
    """A series of images, of which the rows are stored from below; `size_m` is that of y and x."""
    long = "<i" if version < 0x0220 else "<q"
    count = len(planes)
    head = struct.pack("<3H4i", 0x4949, 0x0197, version, kind, 0x4152, count, count)
    place = len(head) + struct.calcsize(long) + 4
    head += struct.pack(long, place) + struct.pack("<i", 0)
    elements, offsets = [], []
    start = place + count * struct.calcsize(long)
    y, x = size_m
    for plane in planes:
        about = struct.pack("<ddiddi", 0.0, x, 0, 0.0, y, 0)
        about += struct.pack("<hii", SER_PIXELS[plane.dtype.name], plane.shape[1], plane.shape[0])
        offsets.append(start)
        elements.append(about + plane[::-1].astype(plane.dtype.newbyteorder("<")).tobytes())
        start += len(elements[-1])
    return head + b"".join(struct.pack(long, offset) for offset in offsets) + b"".join(elements)


def write_velox(path, *stacks, size=("1e-9", "2e-9"), unit="m"):
    """A Velox file of stacks (planes, rows, columns); `size` is that of y and x, in words as Velox has it."""
    sizes = {"height": size[0], "width": size[1]}
    said = {"BinaryResult": {"PixelSize": sizes, "PixelUnitX": unit, "PixelUnitY": unit}}
    text = np.frombuffer(json.dumps(said).encode().ljust(2000, b"\0"), np.uint8)
    with h5py.File(path, "w") as file:
        for number, planes in enumerate(stacks):
            group = file.create_group(f"Data/Image/{number:032x}")
            group.create_dataset("Data", data=np.moveaxis(planes, 0, 2), chunks=(*planes.shape[1:], 1))
            group.create_dataset("Metadata", data=np.repeat(text[:, None], len(planes), axis=1))


def write_ncem(path, pixels, steps, unit="[n_m]"):
    """A file as the openNCEM's programs write it; `steps` are those along the axes."""
    with h5py.File(path, "w") as file:
        group = file.create_group("data/scan")
        group.attrs["emd_group_type"] = 1
        group["data"] = pixels
        for number, (side, step) in enumerate(zip(pixels.shape, steps, strict=True), 1):
            group[f"dim{number}"] = np.arange(side) * step + 7.0
            group[f"dim{number}"].attrs["units"] = np.bytes_(unit)
