"""Quantizes an ONNX file with ONNX Runtime's own tool, as its documentation recommends for CPUs with VNNI.

usage: ort_quantize.py FLOAT.onnx INT8.onnx EXAMPLES.f32 N,C,H,W
EXAMPLES.f32 are float32 values of N calibration examples. Prints one line: ready or missing, with JSON.
"""
import json
import os
import sys
import tempfile

try:
    import numpy as np
    import sympy  # noqa: F401, used by quant_pre_process
    import onnxruntime
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process
except ImportError as err:
    install = "python3 -m venv ort-tools && ort-tools/bin/pip install onnxruntime onnx sympy; then --ort-python ort-tools/bin/python"
    print("missing", json.dumps({"reason": f"{sys.executable}: {err}", "install": install}))
    sys.exit(0)


class Examples(q.CalibrationDataReader):
    def __init__(self, name, values):
        self.batches = iter([{name: values[i : i + 64]} for i in range(0, len(values), 64)])

    def get_next(self):
        return next(self.batches, None)


source, target, examples, shape = sys.argv[1:]
values = np.fromfile(examples, np.float32).reshape([int(d) for d in shape.split(",")])
name = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).get_inputs()[0].name
with tempfile.TemporaryDirectory() as folder:
    prepared = os.path.join(folder, "prepared.onnx")
    quant_pre_process(source, prepared)
    q.quantize_static(
        prepared, target, Examples(name, values), quant_format=q.QuantFormat.QDQ, per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8, calibrate_method=q.CalibrationMethod.MinMax,
    )
print("ready", json.dumps({"version": onnxruntime.__version__, "detail": "quantize_static, QDQ, per channel, min-max"}))
