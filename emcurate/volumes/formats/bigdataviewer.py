"""The XML that BigDataViewer keeps beside its .n5 and .h5: the voxel sizes of its setups; https://imagej.net/BigDataViewer."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from emcurate.errors import DAMAGE
from emcurate.files import is_there, open_regular
from emcurate.images.units import nanometres_per
from emcurate.volumes.layouts import SizeNm, checked_voxel_size

# Of thousands of setups it is a megabyte.
MOST_XML_BYTES = 1 << 25


def read_setup_size(store: Path, setup: int) -> SizeNm | None:
    """Return the voxel size (z, y, x) in nm that the XML beside a store gives of a setup; None where none does.

    Whatever is wrong with that file is no reason not to read the volume.
    """
    path = store.with_suffix(".xml")
    if not is_there(path):
        return None
    try:
        with open_regular(path) as file:
            text = file.read(MOST_XML_BYTES + 1)
        # No such file declares anything; what is declared could name other files, or grow without end.
        if len(text) > MOST_XML_BYTES or b"<!" in text.replace(b"<!--", b""):
            return None
        for element in ElementTree.fromstring(text).iter("ViewSetup"):
            if int(element.findtext("id") or -1) == setup and (size := element.find("voxelSize")) is not None:
                unit = nanometres_per(size.findtext("unit")) or math.nan
                x, y, z = (float(part) * unit for part in (size.findtext("size") or "").split())
                return checked_voxel_size((z, y, x))
    except (*DAMAGE, ElementTree.ParseError):
        return None
    return None
