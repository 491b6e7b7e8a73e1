"""Files of DigitalMicrograph, TIA, Velox and openNCEM, as images and as stacks."""

import importlib

import dm4
import h5py
import numpy as np
import pytest
import tifffile

from emcurate.errors import InputError
from emcurate.images.calibration import read_calibration
from emcurate.images.pixels import to_grey
from emcurate.images.reading import SeveralImagesError, read_image
from emcurate.volumes.volume import open_volume
from tests.recorded_files import DM_PIXELS, SER_PIXELS, DmWriter, dm_bytes, dm_image, ser_bytes, write_ncem, write_velox

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 120, (9, 14))
STACK = RNG.integers(0, 120, (5, 9, 14))


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.fixture(params=["dm3", "dm4", "dm4 >", "ser", "ser long", "velox", "ncem"])
def make(request, tmp_path):
    """Writes an image or a stack with pixels of 3 x 2 nm (y, x) and planes of 5 nm, where the format has these."""
    kind, _, variant = request.param.partition(" ")

    def make(pixels, unit=True):
        path = tmp_path / f"a.{'emd' if kind in ('velox', 'ncem') else kind}"
        planes = pixels if pixels.ndim == 3 else pixels[None]
        if kind == "ser":
            size = (3e-9, 2e-9) if unit else (3e7, 2e7)
            return write(path, ser_bytes(planes, size, version=0x0220 if variant else 0x0210))
        if kind == "velox":
            write_velox(path, planes, size=("3e-9", "2e-9"), unit="m" if unit else "1/m")
        elif kind == "ncem":
            write_ncem(path, pixels, (5, 3, 2)[3 - pixels.ndim :], "[n_m]" if unit else "[mrad]")
        else:
            scales = [(0.002, "µm"), (3, "nm"), (50, "A")] if unit else [(1, "1/nm")] * 3
            image = dm_image(pixels, scales[: pixels.ndim])
            write(path, dm_bytes(image, version=int(kind[2]), order=variant or "<"))
        return path

    make.has_depth = kind not in ("ser", "velox")
    return make


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_an_image_is_read_as_it_was_recorded(make, dtype):
    pixels = PIXELS.astype(dtype)
    found = read_image(make(pixels))
    assert found.dtype == pixels.dtype and found.dtype.isnative
    assert np.array_equal(found, pixels)


def test_a_pixel_that_is_a_length_has_a_size(make):
    path = make(PIXELS.astype(np.uint16))
    assert read_calibration(path, PIXELS.shape).size_nm == pytest.approx((3, 2))


def test_a_pixel_of_a_diffraction_pattern_has_none(make):
    path = make(PIXELS.astype(np.uint16), unit=False)
    found = read_calibration(path, PIXELS.shape)
    assert found.size_nm is None
    assert "without a length: uncalibrated, or a diffraction pattern" in found.said


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_stack_is_a_volume(make, dtype):
    path = make(STACK.astype(dtype))
    volume = open_volume(path)
    assert volume.shape == STACK.shape and volume.dtype == dtype
    assert np.array_equal(volume.read(), STACK)
    for box in np.s_[1:4, 2:9:3, ::2], np.s_[4:5, 8:9, 13:14], np.s_[:, 3:3, :], np.s_[::2, 1::2, 5:]:
        assert np.array_equal(volume.read(*box), STACK[box])
    assert np.array_equal(np.stack(list(volume.voxels.iter_planes(1, 4))), STACK[1:4])
    assert volume.voxel_size_nm == (pytest.approx((5, 3, 2)) if make.has_depth else None)
    with pytest.raises(SeveralImagesError, match="a stack of 5; move it to the 3D corpus"):
        read_image(path)


def test_an_image_is_no_volume(make):
    with pytest.raises(InputError, match="a single 2D image; move it to the 2D corpus"):
        open_volume(make(PIXELS.astype(np.uint8)))


def test_a_file_that_is_cut_off_is_refused_wherever(make):
    path = make(PIXELS.astype(np.uint16))
    data = path.read_bytes()
    last = PIXELS[-1, -2:].astype(np.uint16)
    needed = 0 if b"HDF" in data[:8] else max(data.rfind(some.tobytes()) for some in (last, last.byteswap()))
    for length in range(0, len(data), max(1, len(data) // 100)):
        write(path, data[:length])
        try:
            read_image(path)
            assert length > needed
        except InputError as error:
            assert str(path) in str(error)


def test_flipped_bytes_end_in_pixels_or_in_an_error(make):
    path = make(PIXELS.astype(np.uint16))
    data = bytearray(path.read_bytes())
    for place in RNG.integers(0, len(data), 100):
        changed = data.copy()
        changed[place] ^= 1 << RNG.integers(8)
        write(path, changed)
        try:
            assert read_image(path).ndim == 2
        except InputError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("dtype", [name for name in DM_PIXELS if name != "uint8"])  # which that library does not know
def test_the_dm4_library_finds_the_same_tags(tmp_path, dtype):
    path = write(tmp_path / "a.dm4", dm_bytes(dm_image(PIXELS.astype(dtype), [(2, "nm"), (3, "nm")]), version=4))
    with dm4.DM4File.open(path) as file:
        image = file.read_directory().named_subdirs["ImageList"].unnamed_subdirs[1].named_subdirs["ImageData"]
        data = np.array(file.read_tag_data(image.named_tags["Data"]))
        sides = [file.read_tag_data(tag) for tag in image.named_subdirs["Dimensions"].unnamed_tags]
        scales = [
            file.read_tag_data(axis.named_tags["Scale"])
            for axis in image.named_subdirs["Calibrations"].named_subdirs["Dimension"].unnamed_subdirs
        ]
    assert np.array_equal(data.reshape(sides[::-1]), read_image(path))
    assert read_calibration(path, PIXELS.shape).size_nm == (scales[1], scales[0])


def test_colours_of_digital_micrograph_become_grey(tmp_path):
    colours = RNG.integers(0, 256, (6, 7, 4)).astype(np.uint8)  # blue, green, red, nothing
    image = dm_image(colours.reshape(6, 28).view(np.uint32), kind=23)
    path = write(tmp_path / "a.dm3", dm_bytes(image))
    assert np.array_equal(read_image(path), to_grey(colours[..., 2::-1]))


def test_bits_of_digital_micrograph(tmp_path):
    path = write(tmp_path / "a.dm3", dm_bytes(dm_image((PIXELS > 50).astype(np.uint8), kind=14)))
    assert np.array_equal(read_image(path), PIXELS > 50)


def test_a_thumbnail_alone_is_the_image(tmp_path):
    assert read_image(write(tmp_path / "a.dm3", dm_bytes())).shape == (4, 4)


def test_a_spectrum_beside_the_image_does_no_harm(tmp_path):
    image, spectrum = dm_image(PIXELS.astype(np.int16)), dm_image(np.arange(50, dtype=np.float32), [(1, "eV")])
    assert np.array_equal(read_image(write(tmp_path / "a.dm3", dm_bytes(image, spectrum))), PIXELS)


FLOATS = np.zeros((4, 9), np.float32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (dm_image(np.zeros(50, np.float32)), "spectra or more axes"),
        (dm_image(FLOATS, [(1, "eV"), (1, "nm")]), "spectra or more axes"),
        (dm_image(np.zeros((3, 4, 5), np.float32), form="Spectrum image"), "spectra or more axes"),
        (dm_image(np.zeros((2, 2, 4, 5), np.float32)), "spectra or more axes"),
        (dm_image(FLOATS, kind=3), "complex pixels"),
        (dm_image(FLOATS, kind=27), "packed complex pixels"),
        (dm_image(FLOATS, kind=99), "type 99 pixels"),
        (dm_image(FLOATS, kind=12), "expected 288 bytes of pixels, found 144 bytes"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, image, message):
    with pytest.raises(InputError, match=message):
        read_image(write(tmp_path / "a.dm3", dm_bytes(image)))


def test_several_images_are_refused(tmp_path):
    image = dm_image(PIXELS.astype(np.int16))
    with pytest.raises(InputError, match="expected one image, found 2"):
        read_image(write(tmp_path / "a.dm3", dm_bytes(image, image)))
    write_velox(tmp_path / "a.emd", STACK.astype(np.uint16), STACK.astype(np.uint16))
    with pytest.raises(InputError, match=r"found 2: /Data/Image/0+/Data \(5 x 9 x 14\)"):
        read_image(tmp_path / "a.emd")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ser_bytes([PIXELS.astype(np.uint8)], kind=0x4120), "found spectra"),
        (ser_bytes([PIXELS.astype(np.uint8), PIXELS.astype(np.uint16)]), "2 kinds"),
        (ser_bytes([]), "found 0"),
        (b"II*\0" + bytes(90), "a SER file of TIA"),
        (b"", "empty file"),
    ],
)
def test_other_series_are_refused(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        read_image(write(tmp_path / "a.ser", data))


@pytest.mark.parametrize("data", ["", "00000005" + 90 * "00", "0000000300000010000000010100ffffffff" + 99 * "00"])
def test_other_files_are_no_dm(tmp_path, data):
    with pytest.raises(InputError):
        read_image(write(tmp_path / "a.dm3", bytes.fromhex(data)))


def test_groups_that_are_too_deep_are_refused(tmp_path):
    entries = [("a", 1)]
    for _ in range(200):
        entries = [("a", entries)]
    with pytest.raises(InputError, match="at most 64 deep"):
        read_image(write(tmp_path / "a.dm3", DmWriter().file(entries)))


def test_pixels_in_another_file_are_not_read(tmp_path):
    secret = tmp_path / "secret.h5"
    write_ncem(secret, PIXELS, (1, 1))
    path = tmp_path / "a.emd"
    write_ncem(path, PIXELS, (1, 1))
    with h5py.File(path, "a") as file:
        del file["data/scan/data"]
        file["data/scan/data"] = h5py.ExternalLink(str(secret), "data/scan/data")
    with pytest.raises(InputError, match="a link"):
        read_image(path)
    layout = h5py.VirtualLayout(PIXELS.shape, PIXELS.dtype)
    layout[:] = h5py.VirtualSource(str(secret), "data/scan/data", PIXELS.shape)
    with h5py.File(path, "a") as file:
        del file["data/scan/data"]
        file.create_virtual_dataset("data/scan/data", layout)
    with pytest.raises(InputError, match="in the file itself"):
        read_image(path)


def test_ser_pixels_have_all_types(tmp_path):
    for dtype in SER_PIXELS:
        path = write(tmp_path / "a.ser", ser_bytes([PIXELS.astype(dtype)]))
        assert read_image(path).dtype == dtype


def test_what_was_exported_is_taken_in_the_place_of_what_was_recorded(tmp_path, capsys):
    images, stacks = tmp_path / "images", tmp_path / "stacks"
    for directory, pixels in ((images, PIXELS), (stacks, STACK)):
        directory.mkdir()
        for name in ("alone", "twin"):
            write(directory / f"{name}.dm3", dm_bytes(dm_image(pixels.astype(np.uint8))))
        tifffile.imwrite(directory / "twin.tif", 255 - pixels.astype(np.uint8), photometric="minisblack")
    cleanup2d = importlib.import_module("raw.cleanup2d")
    assert cleanup2d.main([str(images), str(tmp_path / "out")]) == 0
    cross_section3d = importlib.import_module("raw.cross_section3d")
    assert cross_section3d.main([str(stacks), str(tmp_path / "cut"), "-a", "0"]) == 0
    assert capsys.readouterr().out.count("twin.dm3: twin.tif was exported of it; --prefer dm3 takes this one") == 2
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "alone-LOC-2d.tiff"), PIXELS)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "twin-LOC-2d.tiff"), 255 - PIXELS)
    assert np.array_equal(tifffile.imread(tmp_path / "cut" / "twin-LOC-0_3.tiff"), 255 - STACK[3])
    assert np.array_equal(tifffile.imread(tmp_path / "cut" / "alone-LOC-0_3.tiff"), STACK[3])
    assert cleanup2d.main([str(images), str(tmp_path / "other"), "--prefer", "dm3"]) == 0
    assert np.array_equal(tifffile.imread(tmp_path / "other" / "twin-LOC-2d.tiff"), PIXELS)


def test_recorded_slices_are_a_volume_unless_exported_ones_lie_beside_them(tmp_path):
    for number, plane in enumerate(STACK):
        write(tmp_path / f"{number}.dm4", dm_bytes(dm_image(plane.astype(np.uint16)), version=4))
    assert np.array_equal(open_volume(tmp_path).read(), STACK)
    for number, plane in enumerate(STACK[:3]):
        tifffile.imwrite(tmp_path / f"{number}.tif", plane.astype(np.uint8))
    assert np.array_equal(open_volume(tmp_path).read(), STACK[:3])
