"""Eight scripts, as people write them: each is the inside of a file of its own.

A function says what is done with a block of rows; a second one, which tables it is for. The tables can
be of any size: what is not shown here is all that does not change, whether the blocks are worked on one
after another, in several processes or on a cluster.
"""

import numpy as np

from gdalbridge.ratapplier import (
    RCM_INCREMENT,
    OtherArguments,
    RatApplierControls,
    RatAssociations,
    RatHandle,
    RatZarrHandle,
    apply,
)


def tables(**handles):
    found = RatAssociations()
    for name, handle in handles.items():
        setattr(found, name, handle)
    return found


# 1. The ratio of two columns


def ndvi(info, inputs, outputs):
    red = inputs.seg.red.astype(np.float64)
    nir = inputs.seg.nir.astype(np.float64)
    outputs.seg.ndvi = (nir - red) / (nir + red)


def ratio(path, controls):
    seg = tables(seg=RatZarrHandle(path))
    return apply(ndvi, seg, seg, controls=controls)


# 2. Classes recoded by a lookup table


def recode_block(info, inputs, outputs, otherargs):
    outputs.seg.newclass = otherargs.lookup[inputs.seg.oldclass]


def recode(path, lookup, controls):
    otherargs = OtherArguments()
    otherargs.lookup = lookup
    seg = tables(seg=RatZarrHandle(path))
    return apply(recode_block, seg, seg, otherargs, controls)


# 3. Classes by thresholds, as text


def storey(info, inputs, outputs):
    names = np.array(["ground", "shrub", "mid storey", "höchste"], np.dtypes.StringDType())
    outputs.seg.storey = names[np.digitize(inputs.seg.height, [0.5, 2.0, 10.0])]


def classify(path, controls):
    seg = tables(seg=RatZarrHandle(path))
    return apply(storey, seg, seg, controls=controls)


# 4. Two tables of one raster joined: its own first table, and the further one called "texture"


def rough_forest(info, inputs, outputs):
    outputs.img.rough = (inputs.img.height > 2) & (inputs.texture.entropy > 0.5)


def join(raster, texture, controls):
    inputs = tables(img=RatHandle(raster), texture=RatZarrHandle(texture))
    outputs = tables(img=RatHandle(raster))
    return apply(rough_forest, inputs, outputs, controls=controls)


# 5. The rows that matter, in a shorter table


def only_tall(info, inputs, outputs):
    tall = inputs.seg.height > 10
    outputs.tall.row = info.inputRowNumbers[tall]
    outputs.tall.height = inputs.seg.height[tall]


def keep_tall(path, shorter, controls):
    controls.outputRowCountHandling(RCM_INCREMENT)
    inputs, outputs = tables(seg=RatZarrHandle(path)), tables(tall=RatZarrHandle(shorter))
    return apply(only_tall, inputs, outputs, controls=controls)


# 6. A column with a value for each year, and its mean


def mean_of_years(info, inputs, outputs):
    outputs.seg.mean = inputs.seg.yearly.mean(axis=1)


def years(path, controls):
    seg = tables(seg=RatZarrHandle(path))
    return apply(mean_of_years, seg, seg, controls=controls)


# 7. A total over all rows, in the otherargs


def count_pixels(info, inputs, outputs, totals):
    totals.pixels += np.bincount(inputs.seg.oldclass, inputs.seg.pixels, minlength=9)
    totals.blocks.append(info.blockNdx)


def add_totals(totals, of_block):
    totals.pixels += of_block.pixels
    totals.blocks += of_block.blocks


def class_totals(path, controls):
    totals = OtherArguments()
    totals.pixels = np.zeros(9)
    totals.blocks = []
    controls.setMerge(add_totals)
    apply(count_pixels, tables(seg=RatZarrHandle(path)), RatAssociations(), totals, controls)
    return totals


# 8. From a GeoTIFF's own table to S3


def hectares(info, inputs, outputs):
    outputs.out.area_ha = inputs.img.Histogram * 0.09
    outputs.out.name = inputs.img.Class


def to_s3(raster, url, controls):
    inputs, outputs = tables(img=RatHandle(raster)), tables(out=RatZarrHandle(url))
    return apply(hectares, inputs, outputs, controls=controls)


def controls_for(executor, block_rows):
    controls = RatApplierControls()
    controls.setExecutor(executor)
    controls.setBlockLength(block_rows)
    return controls
