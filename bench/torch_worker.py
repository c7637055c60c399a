"""The PyTorch contestant of Narrow's bench: one net, one task, one precision, driven by lines (see doc.go).

Called with a Spec as JSON. `--blas` instead prints which OpenBLAS kernels are in use and how fast they are.
Needs Debian's python3-torch (1.13), python3-numpy and libopenblas0-pthread; later PyTorch versions with FX quantization work too.
"""
import copy
import json
import statistics
import sys
import time
import warnings

INSTALL = "apt-get install python3-torch python3-numpy libopenblas0-pthread"


def say(word, value):
    print(word, json.dumps(value) if isinstance(value, dict) else value, flush=True)


try:
    import numpy as np
    import torch
    import torch.ao.quantization as tq
    from torch import nn
    from torch.ao.quantization import fake_quantize, observer, quantize_fx
except ImportError as err:
    say("missing", {"reason": f"{sys.executable}: {err}", "install": INSTALL})
    sys.exit(0)

warnings.filterwarnings("ignore")


def openblas():
    """The OpenBLAS that PyTorch has loaded and the CPU it takes this one for, or (None, None)."""
    import ctypes

    with open("/proc/self/maps") as maps:
        loaded = sorted({line.split()[-1] for line in maps if "openblas" in line})
    for path in loaded:
        core = getattr(ctypes.CDLL(path), "openblas_get_corename", None)
        if core is not None:
            core.restype = ctypes.c_char_p
            return path, core().decode()
    return None, None


# The nets, as Narrow's presets describe them. Layers are made in the order in which data flow.


def mlp(shape, classes):
    elems = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(elems, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes)
    )


def conv_bn(inputs, outputs, kernel, act, stride=1, groups=1):
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return layers + ([act()] if act else [])


def cnn(shape, classes):
    height, width, channels = shape
    return nn.Sequential(
        *conv_bn(channels, 32, 3, nn.ReLU), nn.MaxPool2d(2),
        *conv_bn(32, 64, 3, nn.ReLU), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), 128), nn.ReLU(), nn.Linear(128, classes),
    )


def mbnet(shape, classes):
    """Depthwise-separable blocks with ReLU6: 16, then 32, 64 (stride 2), 64, 128 (stride 2)."""
    layers = conv_bn(shape[2], 16, 3, nn.ReLU6)
    width = 16
    for outputs, stride in [(32, 1), (64, 2), (64, 1), (128, 2)]:
        layers += conv_bn(width, width, 3, nn.ReLU6, stride, groups=width) + conv_bn(width, outputs, 1, nn.ReLU6)
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Sequential(*conv_bn(inputs, outputs, 3, nn.ReLU, stride))
        self.second = nn.Sequential(*conv_bn(outputs, outputs, 3, None))
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet8(shape, classes):
    """ResNet-8 of MLPerf Tiny."""
    return nn.Sequential(
        *conv_bn(shape[2], 16, 3, nn.ReLU), Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )


NETS = {"mlp": mlp, "cnn": cnn, "mbnet": mbnet, "resnet8": resnet8}


class Data:
    """Examples as float32 in NHWC memory, seen as NCHW: PyTorch's channels_last, also where there is one channel."""

    def __init__(self, data, most):
        shape = data["shape"]
        n = min(data["n"], most)
        count = n * shape[0] * shape[1] * shape[2]
        codes = np.fromfile(data["codes"], np.uint8, count).reshape(n, *shape)
        values = (codes.astype(np.float32) - np.float32(data["zero"])) * np.float32(data["scale"])
        self.x = torch.from_numpy(values)
        self.y = torch.from_numpy(np.fromfile(data["labels"], np.uint8, n).astype(np.int64))
        self.n = n

    def rows(self, index):
        return self.x[index].permute(0, 3, 1, 2), self.y[index]

    def first(self, n, offset=0):
        return self.x[offset : offset + n].contiguous().permute(0, 3, 1, 2)


def qat_qconfig():
    """unsigned 8-bit activations per tensor, signed 8-bit weights per channel, the fused observers of PyTorch's QAT."""
    fused = fake_quantize.FusedMovingAvgObsFakeQuantize
    return tq.QConfig(
        activation=fused.with_args(
            observer=observer.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8, reduce_range=False
        ),
        weight=fused.with_args(
            observer=observer.MovingAveragePerChannelMinMaxObserver,
            quant_min=-128, quant_max=127, dtype=torch.qint8, qscheme=torch.per_channel_symmetric,
        ),
    )


class Training:
    """Steps of forward, backward and Adam over shuffled epochs; each step gathers its batch."""

    def __init__(self, spec):
        torch.set_flush_denormal(True)
        self.batch = spec["batches"][0]
        self.data = Data(spec["data"], spec["data"]["n"])
        shape, classes = spec["data"]["shape"], spec["data"]["classes"]
        model = NETS[spec["net"]](shape, classes).train()
        self.detail = "channels_last, flush-denormal"
        if spec["precision"] == "int8":
            example = (self.data.first(2),)
            mapping = tq.QConfigMapping().set_global(qat_qconfig())
            model = quantize_fx.prepare_qat_fx(model, mapping, example)
            self.detail += ", FX QAT, fused observers and fake-quant on"
        self.model = model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), spec["lr"])
        self.loss = nn.CrossEntropyLoss()
        self.order, self.at = None, self.data.n
        for _ in range(20):
            self.step()

    def step(self):
        if self.at + self.batch > self.data.n:
            self.order, self.at = torch.randperm(self.data.n), 0
        x, y = self.data.rows(self.order[self.at : self.at + self.batch])
        self.at += self.batch
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.model(x), y).backward()
        self.optimizer.step()

    def call(self, batch):
        if batch != self.batch:
            raise ValueError(f"batch {batch}, want {self.batch}")
        return self.step


class Inference:
    """A traced and frozen net. Of the layouts and passes that PyTorch offers, each batch size gets its fastest."""

    def __init__(self, spec):
        torch.set_flush_denormal(True)
        most = max(64, *spec["batches"])
        self.data = Data(spec["data"], max(most, 512))
        shape, classes = spec["data"]["shape"], spec["data"]["classes"]
        model = NETS[spec["net"]](shape, classes)
        with torch.no_grad():
            model.train()
            for _ in range(3):  # statistics of batch norm
                model(self.data.first(64))
            model.eval()
            if spec["precision"] == "int8":
                model = self.quantized(model)
        self.int8 = spec["precision"] == "int8"
        self.model, self.chosen, self.detail = model, {}, ""
        names = []
        for batch in spec["batches"]:
            name, call = self.fastest(batch)
            self.chosen[batch] = call
            names.append(f"batch {batch}: {name}")
        self.detail = ("FX int8 onednn, " if self.int8 else "") + "; ".join(names)

    def quantized(self, model):
        torch.backends.quantized.engine = "onednn"
        config = tq.QConfig(
            activation=observer.HistogramObserver.with_args(reduce_range=False),
            weight=observer.default_per_channel_weight_observer,
        )
        prepared = quantize_fx.prepare_fx(model, tq.QConfigMapping().set_global(config), (self.data.first(2),))
        prepared(self.data.first(512))
        return quantize_fx.convert_fx(prepared).eval()

    def forms(self, batch):
        """Yields (name, function of an example batch, its inputs)."""
        count = max(1, self.data.n // batch)
        nhwc = [self.data.first(batch, i * batch) for i in range(min(count, 64))]
        nchw = [x.clone(memory_format=torch.contiguous_format) for x in nhwc]
        for layout, inputs in [("channels_last", nhwc), ("NCHW", nchw)]:
            form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            model = self.model if self.int8 else copy.deepcopy(self.model).to(memory_format=form)
            frozen = torch.jit.freeze(torch.jit.trace(model, inputs[0]).eval())
            yield f"frozen, {layout}", frozen, inputs
            if not self.int8:
                try:
                    best = torch.jit.optimize_for_inference(torch.jit.trace(model, inputs[0]).eval())
                    best(inputs[0])
                except RuntimeError as err:
                    print(f"optimize_for_inference, {layout}: {err}", file=sys.stderr)
                    continue
                yield f"optimize_for_inference, {layout}", best, inputs

    def fastest(self, batch):
        best = None
        with torch.no_grad():
            for name, net, inputs in self.forms(batch):
                call = self.turns(net, inputs)
                for _ in range(10):  # the profiling executor compiles in its first calls
                    call()
                times, end = [], time.perf_counter() + 0.2
                while time.perf_counter() < end:
                    began = time.perf_counter()
                    call()
                    times.append(time.perf_counter() - began)
                took = statistics.median(times)
                if best is None or took < best[0]:
                    best = (took, name, call)
        return best[1], best[2]

    @staticmethod
    def turns(net, inputs):
        at = 0

        def call():
            nonlocal at
            at = (at + 1) % len(inputs)
            return net(inputs[at])

        return call

    def call(self, batch):
        return self.chosen[batch]


def run(call, batch, seconds):
    warm = time.perf_counter() + seconds / 20  # another process had the caches
    for _ in range(3):
        call()
    while time.perf_counter() < warm:
        call()
    each, cpu, began = [], time.process_time(), time.perf_counter()
    before = began
    while True:
        call()
        now = time.perf_counter()
        each.append(now - before)
        before = now
        if now - began >= seconds:
            break
    return f"{batch * len(each)} {now - began:.9f} {time.process_time() - cpu:.9f} {1e6 * statistics.median(each):.4f}"


def blas():
    torch.set_num_threads(1)
    path, core = openblas()
    a, b = torch.rand(512, 512), torch.rand(512, 512)
    best = float("inf")
    for _ in range(20):
        began = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - began)
    say("blas", {"library": path or "", "core": core or "", "gflops": 2 * 512**3 / max(best, 1e-9) / 1e9})


def main():
    if sys.argv[-1] == "--blas":
        return blas()
    spec = json.loads(sys.argv[-1])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    path, core = openblas()
    if path is None:
        return say("missing", {
            "reason": "PyTorch runs on the reference BLAS, some 20 times slower than OpenBLAS: not a fair peer", "install": INSTALL,
        })
    if spec["net"] not in NETS:
        return say("failed", f"net {spec['net']!r} is not defined in torch_worker.py")
    work = Training(spec) if spec["task"] == "train" else Inference(spec)
    say("ready", {"version": torch.__version__, "detail": f"{work.detail}; OpenBLAS {core}"})
    with torch.set_grad_enabled(spec["task"] == "train"):
        for line in sys.stdin:
            _, batch, seconds = line.split()
            print("done", run(work.call(int(batch)), int(batch), float(seconds)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except Exception as err:  # the driver shows it
        say("failed", f"{type(err).__name__}: {err}".replace("\n", "; "))
        raise
