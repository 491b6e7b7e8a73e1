"""Files made to do harm: sizes of 2^31, no numbers, lists without end, bombs, names of other files, pickles."""

from tests.torture.crafted_chunked import make_chunked
from tests.torture.crafted_images import make_images, make_videos
from tests.torture.crafted_lists import (
    make_cocos,
    make_csvs,
    make_hashes,
    make_labels,
    make_path_lists,
    make_weights,
    make_zips,
)
from tests.torture.crafted_tiffs import make_sections, make_stacks, make_tiff_images
from tests.torture.crafted_volumes import make_mrcs, make_niftis, make_nrrds


def make_crafted(reader, root):
    """Yield (what, files) of crafted cases for a reader; ``CASE00`` in names of files stands for that of the case."""
    makers = {
        "cross_section3d": (make_stacks, make_mrcs, make_nrrds, make_niftis, make_chunked),
        "mrc2byte": (make_mrcs,),
        "cleanup2d": (make_tiff_images, make_images),
        "crop_patches": (make_sections,),
        "vid2stack": (make_videos,),
        "deduplicate": (make_hashes,),
        "reconstruct3d": (make_path_lists,),
        "train_nn": (make_labels,),
        "trim_coco": (make_cocos,),
        "trim_coco of a zip": (make_zips,),
        "trim_siim": (make_csvs,),
        "classify_nn": (make_weights,),
    }
    for maker in makers.get(reader, ()):
        yield from maker(root)
