import numpy as np
import pytest
import tifffile
from PIL import Image

from emcurate.images.calibration import NOTHING, Calibration, read_calibration
from emcurate.images.sidecars import is_sidecar
from tests.sem_images import BAR, FEI_TAG, ZEISS_TAG, fei_text, write_fei, write_sem, zeiss_text

PIXELS = np.random.default_rng(0).integers(0, 256, (120, 160)).astype(np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.tif"


def read(path, sidecar=None):
    with Image.open(path) as image:
        return read_calibration(path, (image.height, image.width), sidecar)


@pytest.mark.parametrize(
    ("unit", "resolution", "nanometres"),
    [("um", 250.0, 4.0), ("nm", 0.5, 2.0), ("\\u00B5m", 100.0, 10.0), ("mm", 10.0, 1e5)],
)
def test_imagej_has_pixels_per_unit(path, unit, resolution, nanometres):
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(resolution, resolution / 2), metadata={"unit": unit})
    found = read(path)
    assert found.size_nm == pytest.approx((2 * nanometres, nanometres), rel=1e-5)
    assert found.said == "ImageJ"


@pytest.mark.parametrize("metadata", [{}, {"unit": "pixel"}, {"unit": "inch"}])
def test_imagej_without_a_length_says_nothing(path, metadata):
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(72, 72), metadata=metadata)
    assert read(path).size_nm is None


def test_ome_has_sizes_with_units(path):
    metadata = {"PhysicalSizeX": 4.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.005}
    tifffile.imwrite(path, PIXELS, ome=True, metadata=metadata)
    assert read(path) == Calibration(pytest.approx((5.0, 4.5)), "OME metadata")


@pytest.mark.parametrize(
    ("unit", "per_unit", "nanometres"),
    [("CENTIMETER", 7038270, 1.4208), ("INCH", 2.54e6, 10.0), ("INCH", 10_000, 2540)],
)
def test_resolution_tags_may_be_a_pixel_size(path, unit, per_unit, nanometres):
    tifffile.imwrite(path, PIXELS, resolution=(per_unit, per_unit), resolutionunit=unit, metadata=None)
    assert read(path).size_nm == pytest.approx((nanometres, nanometres), rel=1e-4)


@pytest.mark.parametrize(
    ("unit", "per_unit", "dpi"),
    [("INCH", 72, "72"), ("INCH", 96, "96"), ("CENTIMETER", 118.11, "300"), ("INCH", 4800, "4800")],
)
def test_the_resolution_of_a_screen_or_scanner_is_no_pixel_size(path, unit, per_unit, dpi):
    tifffile.imwrite(path, PIXELS, resolution=(per_unit, per_unit), resolutionunit=unit, metadata=None)
    found = read(path)
    assert found.size_nm is None
    assert f"{dpi} dpi" in found.said


@pytest.mark.parametrize("dpi", [None, 72, 300])
def test_most_pngs_say_nothing(tmp_path, dpi):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, **({} if dpi is None else {"dpi": (dpi, dpi)}))
    assert read(path).size_nm is None


def test_a_png_may_have_pixels_per_metre(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, dpi=(2.54e6, 5.08e6))
    assert read(path).size_nm == pytest.approx((5.0, 10.0))


def test_fei_tells_the_scan_from_the_info_bar(path):
    write_fei(path, PIXELS)
    assert read(path) == Calibration((pytest.approx(3372.4), pytest.approx(3372.4)), "FEI metadata", BAR)


@pytest.mark.parametrize(
    ("columns", "rows", "bar", "rows_of_bar"),
    [(160, 120, 29, None), (160, 110, 10, 10), (160, 110, 9, None), (160, 40, 80, None), (160, 130, 29, None)],
)
def test_only_what_can_be_an_info_bar_is_one(path, columns, rows, bar, rows_of_bar):
    write_sem(path, PIXELS, FEI_TAG, fei_text(columns, rows, bar=bar))
    found = read(path)
    assert found.size_nm is not None
    assert found.bar_rows == rows_of_bar


def test_metadata_of_an_image_that_was_scaled_since_say_nothing(path):
    write_sem(path, PIXELS[:, ::2], FEI_TAG, fei_text(160, 120))
    found = read(path)
    assert (found.size_nm, found.bar_rows) == (None, None)
    assert "another width" in found.said


@pytest.mark.parametrize(
    ("entries", "nanometres"),
    [
        (["AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 12.33 nm", "AP_PIXEL_SIZE", "Pixel Size = 24.65 nm"], 12.33),
        (["AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 2.615 µm"], 2615),
        (["AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 558.2 pm"], 0.5582),
        (["AP_PIXEL_SIZE", "Pixel Size = 5.825 nm"], 5.825 * 1024 / 160),
        (["AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 0.0 fm"], None),
        ([], None),
    ],
)
def test_zeiss_gives_the_images_pixels_or_those_of_1024_columns(path, entries, nanometres):
    write_sem(path, PIXELS, ZEISS_TAG, zeiss_text(160, 120, entries))
    size = read(path).size_nm
    assert size == (nanometres and pytest.approx((nanometres, nanometres)))


def test_zeiss_metadata_tell_of_a_bar_that_was_added_below(path):
    write_sem(path, PIXELS, ZEISS_TAG, zeiss_text(160, 100, ["AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 3 nm"]))
    assert read(path).bar_rows == 20


def test_digital_micrograph_has_tags_for_both_sides(path):
    def text(tag, value):
        return (tag, "s", len(value.encode()) + 1, value.encode(), True)

    units, sizes = [text(65003, "µm"), text(65004, "nm")], [(65009, "d", 1, 0.2, True), (65010, "d", 1, 150.0, True)]
    tifffile.imwrite(path, PIXELS, metadata=None, extratags=units + sizes)
    assert read(path) == Calibration(pytest.approx((150.0, 200.0)), "DigitalMicrograph tags")
    tifffile.imwrite(path, PIXELS, metadata=None, extratags=[text(65003, "1/nm"), text(65004, "1/nm"), *sizes])
    assert read(path).size_nm is None


HITACHI = "[SemImageFile]\r\nInstructName=SU8000\r\nDataSize={}x{}\r\nPixelSize=4.961\r\nMagnification=20000\r\n"
JEOL = "$CM_FORMAT JEOL/SEM\r\n$CM_FULL_SIZE {} {}\r\n$$SM_MICRON_BAR 160\r\n$$SM_MICRON_MARKER 1um\r\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize(("text", "nanometres"), [(HITACHI, 4.961), (JEOL, 6.25)])
def test_text_files_beside_the_image_tell_size_and_bar(path, text, nanometres, encoding):
    tifffile.imwrite(path, PIXELS, resolution=(72, 72), resolutionunit="INCH", metadata=None)
    beside = path.with_suffix(".txt")
    beside.write_bytes(text.format(160, 100).encode(encoding))
    assert is_sidecar(beside)
    found = read(path, beside)
    assert found.size_nm == pytest.approx((nanometres, nanometres))
    assert found.bar_rows == 20
    beside.write_bytes(text.format(320, 240).encode(encoding))
    assert read(path, beside).size_nm is None


@pytest.mark.parametrize("content", [b"", b"notes", b"$CMX 1", b"PixelSize=4", b"\xff\xfe\x00", bytes(range(256)) * 9])
def test_other_text_is_nobodys(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert not is_sidecar(path)
    assert not is_sidecar(tmp_path)


@pytest.mark.parametrize("value", ["", "nan", "inf", "-4", "0", "4 5", "1e400", "0x10"])
def test_a_size_that_is_none_is_unknown(path, value):
    write_sem(path, PIXELS, FEI_TAG, fei_text(160, 120, pixel=value))
    assert read(path).size_nm is None
    beside = path.with_suffix(".txt")
    beside.write_text(f"[SemImageFile]\nPixelSize={value}\n")
    assert read(path, beside).size_nm is None
    write_sem(path, PIXELS, ZEISS_TAG, zeiss_text(160, 120, ["AP_IMAGE_PIXEL_SIZE", f"Image Pixel Size = {value} nm"]))
    assert read(path).size_nm is None


def test_a_plain_tiff_says_nothing(path):
    tifffile.imwrite(path, PIXELS, metadata=None)
    assert read(path) == Calibration(None, NOTHING, None)
