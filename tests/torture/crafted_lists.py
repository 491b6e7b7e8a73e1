"""Arrays, path lists, labels, COCO, zips, csv and weights that make no sense, or are made to do harm."""

import io
import json
import struct
import zipfile

import numpy as np

from tests.torture.originals import PIXELS, npy_bytes


class Payload:
    """What pickle would run; a file beside the test tells if it did."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def pickled(root):
    """Return the bytes of a pickle that makes ``root/ran`` when it is read."""
    import pickle

    return pickle.dumps(Payload(root / "ran"))


def npy_with_header(text, data=b"", version=1):
    """Return an ``.npy`` file with a header of this text."""
    size = struct.pack("<H" if version == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin1") + b"\n" + data


def make_npys(root):
    """Yield (what, bytes) of ``.npy`` files that make no sense, or hold pickles that make ``root/ran``."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(root / "ran")], object), allow_pickle=True)
    yield "Python objects", buffer.getvalue()
    yield "a pickle", pickled(root)
    texts = [
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<U60', 'fortran_order': False, 'shape': (1099511627776,)}",
        "{'descr': '<U536870911', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (-8, -8)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (0, 0)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (65536, 65536)}",
        "{'descr': '|b1', 'fortran_order': True, 'shape': ()}",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (8, 8)}",
        "{'descr': '<f8', 'fortran_order': 'x', 'shape': (8, 8)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (8, 8)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (8.5, 8)}",
        "{'descr': '|b1', 'fortran_order': False, 'shape': (1" + "0" * 40 + ",)}",
        "{'descr': '|b1', 'fortran_order': False}",
        "{'descr': ",
        "(" * 200,
        "[" * 5000,
        "__import__('os').abort()",
        "{1: 2}",
        "'x'",
        "",
        "\t\n  x",
        "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (8, 8)}",
    ]
    for text in texts:
        for version in (1, 2):
            yield f"version {version}, {text[:60]}", npy_with_header(text, bytes(600), version)
    yield "version 9", b"\x93NUMPY\x09\0\x10\0" + bytes(100)
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    yield "an archive", archive.getvalue()
    yield "a cut-off archive", archive.getvalue()[:50]
    yield "64-bit numbers", npy_bytes(np.zeros((8, 8)))


def make_hashes(root):
    from emcurate.images.sections import encode_section

    beside = {"CASE00-LOC-2d_0_0.tiff": encode_section(PIXELS[:32, :32])}
    for what, data in make_npys(root):
        yield f"hash: {what}", {"CASE00-LOC-2d_0_0.npy": data, **beside}
    for shape in ((0, 0), (0, 8), (8,), (8, 8, 8), (1, 1), (3, 5), (200, 200)):
        yield f"hash of {shape}", {"CASE00-LOC-2d_0_0.npy": npy_bytes(np.zeros(shape, bool)), **beside}


def make_path_lists(root):
    for what, data in make_npys(root):
        yield f"path list: {what}", {"0.npy": data}
    for paths in (["/dev/zero"], [str(root / "pipe")], ["\n"], ["a\0b"], [""], ["x" * 5000], ["vol-LOC-0_2_0_0.tiff"]):
        yield f"path list of {paths[0][:20]!r}", {"0.npy": npy_bytes(np.array(paths))}
        members = [f"{path}.tar/vol-LOC-0_2_0_0.tiff" for path in paths]
        yield f"path list of shards {paths[0][:20]!r}", {"0.npy": npy_bytes(np.array(members))}
        tiffs = [f"{path}/vol-LOC-0_2_{y}_0.tiff" for path in paths for y in range(3)]
        yield f"path list of patches in {paths[0][:20]!r}", {"0.npy": npy_bytes(np.array(tiffs))}
    surrogate = np.frombuffer(np.array(["abc"]).tobytes().replace(b"b\0\0\0", b"\x00\xdc\0\0"), "<U3")
    yield "path list of a lone surrogate", {"0.npy": npy_bytes(surrogate)}
    beyond = np.frombuffer(b"\xff\xff\xff\x7f" * 3, "<U3")
    yield "path list of no letters", {"0.npy": npy_bytes(beyond)}
    good = npy_bytes(np.array(["/a/vol-LOC-0_2_0_0.tiff"]))
    yield "path list with a chunk missing", {"0.npy": good, "2.npy": good}
    yield "path list with a chunk of number 10^20", {"0.npy": good, f"{10**20}.npy": good}
    yield "path list with 00.npy", {"0.npy": good, "00.npy": good}
    yield "path list with ².npy", {"0.npy": good, "².npy": good}
    yield "path list whose info is a payload", {"0.npy": good, "info": pickled(root)}
    yield "path list of places of 40 digits", {"0.npy": npy_bytes(np.array([f"/vol-LOC-0_2_{'9' * 40}_0.tiff"]))}
    yield "path list of a section of 40 digits", {"0.npy": npy_bytes(np.array([f"/vol-LOC-0_{'9' * 40}_0_0.tiff"]))}


def make_labels(root):
    for what, data in make_npys(root):
        yield f"labels: {what}", {"labels.npy": data}
    for words in (["=HYPERLINK(1)"] * 3, ["none"] * 2, ["<script>"] * 3, ["\n"] * 3):
        yield f"labels of {words[0]!r}", {"labels.npy": npy_bytes(np.array(words))}


def make_cocos(root):
    one = {"id": 1, "file_name": "1.png", "width": 8, "height": 6}
    mark = {"id": 1, "image_id": 1, "category_id": 3}
    texts = [
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps({"images": [], "annotations": [], "categories": []}),
        json.dumps({"images": [one], "annotations": [{**mark, "image_id": 10**30}], "categories": []}),
        json.dumps({"images": [{**one, "id": -1}], "annotations": [{**mark, "image_id": -1}]}),
        json.dumps({"images": [one], "annotations": [mark], "categories": [{"id": 3, "name": "=HYPERLINK(1)"}]}),
        json.dumps({"images": [{**one, "file_name": "x" * 300}], "annotations": [mark]}),
        json.dumps({"images": [{**one, "file_name": "a\nb"}], "annotations": [mark]}),
        json.dumps({"images": [{**one, "file_name": "\ud800.png"}], "annotations": [mark]}),
        '{"images": NaN, "annotations": []}',
        '{"images": [{"id": 1e400, "file_name": "a"}], "annotations": []}',
        "\ufeff{}",
        "null",
    ]
    for text in texts:
        yield f"COCO: {text[:60]}", {"instances.json": text.encode("utf-8", "surrogatepass")}
    yield "COCO: UTF-16", {"instances.json": "{}".encode("utf-16")}
    yield "COCO: bytes", {"instances.json": bytes(range(256))}


def make_zips(root):
    coco = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 6} for i in range(1, 9)],
        "annotations": [{"id": i, "image_id": i, "category_id": 3 if i % 2 else 1} for i in range(1, 9)],
    }
    instances = json.dumps(coco).encode()

    def files(entries, edit=lambda data: data):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data, mode in entries:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, data)
        return {"images.zip": edit(buffer.getvalue()), "instances.json": instances}

    usual = [(f"{i}.png", b"x" * i, 0o100644) for i in range(1, 9)]
    yield "zip: names that lead out", files([("../1.png", b"x", 0), ("/2.png", b"x", 0), *usual[2:]])
    yield "zip: a link", files([("1.png", b"/etc/passwd", 0o120777), *usual[1:]])
    yield "zip: a bomb", files([("1.png", bytes(300 << 20), 0), *usual[1:]])
    yield (
        "zip: encrypted",
        files(usual, lambda data: data.replace(b"PK\x01\x02\x14\0\x14\0\0\0", b"PK\x01\x02\x14\0\x14\0\1\0")),
    )
    yield "zip: method 99", files(usual, lambda data: data.replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x63\0"))
    yield "zip: nothing in it", files([])


def make_csvs(root):
    head = "image_name,patient_id,sex,benign_malignant,target\n"
    row = "ISIC_{0},IP_1,male,{1},0\n"
    rows = "".join(row.format(i, "malignant" if i % 3 else "benign") for i in range(40))
    texts = {
        "a field of 10^6 letters": head + rows.replace("IP_1", "x" * 1_000_000, 1),
        "a quote without end": head + rows.replace("IP_1", '"IP_1', 1),
        "NUL": head + rows.replace("male", "ma\0le", 1),
        "formulas": head + rows.replace("male", "=HYPERLINK(1)", 1),
        "no header": rows,
        "a column twice": head.replace("sex", "target") + rows,
        "carriage returns": (head + rows).replace("\n", "\r"),
        "rows of other lengths": head + rows.replace("male,", "", 1),
        "nothing": "",
        "a header": head,
        "lines of nothing": head + "\n" * 1000 + rows,
        "U+2028": head + rows.replace("male", "ma\u2028le\u0085", 1),
        "names that lead out": head + rows.replace("ISIC_0,", "../../x,", 1),
        "one name": head + rows.replace("ISIC_1,", "ISIC_2,", 1),
    }
    for what, text in texts.items():
        yield f"csv: {what}", {"metadata.csv": text.encode()}
    yield "csv: UTF-16", {"metadata.csv": (head + rows).encode("utf-16")}
    yield "csv: bytes", {"metadata.csv": head.encode() + bytes(range(256)) * 4}


def make_weights(root):
    import pickle

    yield "weights: a payload", {"w.pth": pickled(root)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(root))
        archive.writestr("archive/version", "3\n")
    yield "weights: a payload in an archive", {"w.pth": buffer.getvalue()}
    yield "weights: a pickle of numbers", {"w.pth": pickle.dumps({"a": [1, 2]})}
    for text in (
        "[]",
        "{}",
        '{"input": []}',
        "[" * 100_000,
        '{"weights_sha256": 1, "input": {"image_size": 1e400}}',
        "NaN",
    ):
        yield f"card: {text[:40]}", {"w.pth": b"x", "w.json": text.encode()}
