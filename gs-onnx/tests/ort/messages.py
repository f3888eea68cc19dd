#!/usr/bin/env python3
"""Every field of every ONNX message survives: messages with all fields filled, made from onnx's own descriptors, are
decoded and encoded by our tool and must come back the same.

  messages.py --tool target/debug/examples/onnx_roundtrip

Needs onnx.
"""
import argparse
import itertools
import pathlib
import subprocess
import sys
import tempfile

import onnx
from google.protobuf.descriptor import FieldDescriptor as FD

NESTING = 7  # deep enough for a graph in an attribute of a node of a graph


def is_list(field):
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == FD.LABEL_REPEATED


def scalar(field, n):
    if field.type == FD.TYPE_ENUM:
        values = field.enum_type.values
        return values[n % len(values)].number
    if field.cpp_type in (FD.CPPTYPE_FLOAT, FD.CPPTYPE_DOUBLE):
        return n + 0.5
    if field.type == FD.TYPE_BYTES:
        return bytes([n % 256, 0, 255])
    if field.cpp_type == FD.CPPTYPE_STRING:
        return f"{field.name} {n} \u00fc"
    return -n if field.cpp_type in (FD.CPPTYPE_INT32, FD.CPPTYPE_INT64) and n % 3 == 0 else n


def fill(message, counter, depth, member):
    """Fills all fields; of a choice, the member that `member` says."""
    for oneof in message.DESCRIPTOR.oneofs:
        fill_field(message, oneof.fields[member % len(oneof.fields)], counter, depth, member)
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is None:
            fill_field(message, field, counter, depth, member)


def fill_field(message, field, counter, depth, member):
    if field.cpp_type == FD.CPPTYPE_MESSAGE:
        if depth == 0:
            return
        if is_list(field):
            fill(getattr(message, field.name).add(), counter, depth - 1, member)
        else:
            target = getattr(message, field.name)
            target.SetInParent()
            fill(target, counter, depth - 1, member)
    elif is_list(field):
        getattr(message, field.name).extend(scalar(field, next(counter)) for _ in range(2))
    else:
        setattr(message, field.name, scalar(field, next(counter)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", required=True)
    tool = p.parse_args().tool
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        made, back = pathlib.Path(folder) / "made.onnx", pathlib.Path(folder) / "back.onnx"
        for member in range(6):  # the type of a value has six kinds
            model = onnx.ModelProto()
            fill(model, itertools.count(1), NESTING, member)
            made.write_bytes(model.SerializeToString(deterministic=True))
            subprocess.run([tool, "--message", str(made), str(back)], check=True)
            # Not the bytes: a choice stands where its first member would, which protobuf leaves open.
            same = onnx.ModelProto.FromString(back.read_bytes()) == model
            if not same or made.stat().st_size != back.stat().st_size:
                wrong += 1
                print(f"member {member}: {made.stat().st_size} bytes became {back.stat().st_size}, equal: {same}")
    print("all fields survive" if not wrong else f"{wrong} messages changed")
    return 1 if wrong else 0


sys.exit(main())
