"""Reads the constants of a network in OpenVINO's intermediate representation (xml + bin)."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

ELEMENT_TYPES = {"f32": "<f4", "f16": "<f2", "f64": "<f8", "i64": "<i8", "i32": "<i4"}


class Constant(NamedTuple):
    """A constant of the network: its layer's name, and its value."""

    name: str
    value: np.ndarray


def read_constants(xml: bytes, weights: bytes) -> list[Constant]:
    """All constants, in the order of the file, which is an order of execution.

    Each `Const` layer gives its element type, shape, and the offset and size of its bytes in
    `weights`. Layer names are the exporter's: parameters keep theirs, folded ones get new names.
    """
    constants = []
    for layer in ElementTree.fromstring(xml).iterfind("layers/layer[@type='Const']"):
        data = layer.find("data")
        if data is None:
            raise ValueError(f"constant {layer.get('name')!r} has no data")
        shape = [int(side) for side in data.attrib["shape"].split(",") if side.strip()]
        dtype = np.dtype(ELEMENT_TYPES[data.attrib["element_type"]])
        offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
        value = np.frombuffer(weights, dtype, size // dtype.itemsize, offset).reshape(shape)
        constants.append(Constant(layer.attrib["name"], value))
    return constants
