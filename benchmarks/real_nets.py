"""Trained nets of other people: what a diagnosis says of them, beside ∂loss/∂x by torch in float64.

    pip install --no-deps --target FOLDER silero-vad==6.2.3 g2pM==0.1.2.5 g2p_en==2.1.0 \\
        dgaintel==2.3 BeatNet==1.1.3
    python -m benchmarks.real_nets FOLDER [--out F]

Needs torch, h5py and safetensors. Weights are read from the packages' own files; g2pM keeps them as
a pickle of arrays, which is opened by an unpickler that knows arrays alone. Each net reads data of
its own kind: words, sentences, domain names, and sounds that are made here. The loss is that of the
net's own output. A net of two directions is read in the middle, where its own reader reads it.

A finding without a loss is contradicted if it says that a gradient falls short, and the gradient of
the net's own output, by torch, reaches.
"""

import argparse
import json
import pathlib
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from benchmarks import timing
from jaxrnn import convert

WORDS = ("pronunciation", "extraordinary", "understanding", "international", "communication",
         "characteristics", "responsibility", "mathematical")  # fmt: skip
SENTENCES = (
    "今天的天气很好我们一起去公园散步吧",
    "他长得很高头发也很长看起来像个运动员",
    "银行的工作人员正在行走在马路的旁边",
    "这个问题的答案还没有人能够说得清楚",
    "我的朋友都喜欢在周末的时候去看电影",
    "老师重复了三遍学生们还是觉得很重要",
)
DOMAINS = (
    "wikipedia.org",
    "stackoverflow.com",
    "github.com",
    "openstreetmap.org",
    "xjwqzkpvtrhn.biz",
    "qkdhfywbzmtx.info",
    "university-of-somewhere.edu",
    "a8f3kd92jq0z.net",
)


class Net(NamedTuple):
    """A net with its batch and its own output."""

    model: Any
    xs: np.ndarray  # (T, B, D)
    lengths: np.ndarray | None
    head: Callable[[Any, Any], Any]  # (outputs (T, B, ·), an array module) ↦ a scalar


class ArraysAlone(pickle.Unpickler):
    """Opens a pickle of arrays and refuses whatever else is in it."""

    KNOWN = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy", "collections")

    def find_class(self, module: str, name: str) -> Any:
        if module in self.KNOWN and name in (
            "_reconstruct",
            "ndarray",
            "dtype",
            "OrderedDict",
            "scalar",
        ):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def g2p_en(folder: pathlib.Path) -> Net:
    """The encoder of a speller: a GRU over letters; its last state starts the decoder."""
    file = np.load(folder / "g2p_en" / "checkpoint20.npz")
    names = {"weight_ih_l0": "enc_w_ih", "weight_hh_l0": "enc_w_hh", "bias_ih_l0": "enc_b_ih",
             "bias_hh_l0": "enc_b_hh"}  # fmt: skip
    model = convert.torch.read({new: file[old] for new, old in names.items()})
    letters = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
    rows = [[letters.index(c) for c in word] + [2] for word in WORDS]
    xs, lengths = padded(file["enc_emb"], rows)
    w, wh, b, bh = (file[f"dec_{name}"] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
    first = file["dec_emb"][2]

    def head(outputs: Any, np_: Any) -> Any:
        """The first phoneme: one step of the decoder's GRU, then logits."""
        h = np_.stack([outputs[n - 1, i] for i, n in enumerate(lengths)])
        H = h.shape[-1]
        sigmoid = lambda x: 1 / (1 + np_.exp(-x))  # noqa: E731
        put = lambda x: np_.asarray(x, dtype=h.dtype)  # noqa: E731
        u, a = put(first @ w.T + b), h @ put(wh).T + put(bh)
        r, z = sigmoid(u[:H] + a[:, :H]), sigmoid(u[H : 2 * H] + a[:, H : 2 * H])
        h = (1 - z) * np_.tanh(u[2 * H :] + r * a[:, 2 * H :]) + z * h
        return nll(h @ put(file["fc_w"]).T + put(file["fc_b"]), np_)

    return Net(model, xs, lengths, head)


def g2pm(folder: pathlib.Path) -> Net:
    """A bidirectional LSTM over characters, read at one of them."""
    with open(folder / "g2pM" / "np_ckpt.pkl", "rb") as file:
        arrays = ArraysAlone(file).load()
    with open(folder / "g2pM" / "char2idx.pkl", "rb") as file:
        index = ArraysAlone(file).load()
    model = convert.torch.read(dict(arrays), prefix="lstm")
    rows = [[index.get(c, 1) for c in sentence] for sentence in SENTENCES]
    xs, lengths = padded(arrays["embedding.weight"], rows)

    def head(outputs: Any, np_: Any) -> Any:
        h = np_.stack([outputs[n // 2, i] for i, n in enumerate(lengths)])
        put = lambda name: np_.asarray(arrays[name], dtype=h.dtype)  # noqa: E731
        hidden = h @ put("logit_layer.0.weight").T + put("logit_layer.0.bias")
        hidden = hidden * (hidden > 0)
        return nll(hidden @ put("logit_layer.2.weight").T + put("logit_layer.2.bias"), np_)

    return Net(model, xs, lengths, head)


def dgaintel(folder: pathlib.Path) -> Net:
    """An LSTM over letters of domain names, convolved and pooled; read at its last step."""
    import h5py
    import torch

    file = h5py.File(folder / "dgaintel" / "domain_classifier_model.h5")["model_weights"]
    leaf = lambda layer, name: np.array(file[f"{layer}/{layer}/{name}:0"])  # noqa: E731
    letters = "-.0123456789_abcdefghijklmnopqrstuvwxyz"
    ids = np.zeros((len(DOMAINS), 82), int)
    for i, domain in enumerate(DOMAINS):
        ids[i, : len(domain)] = [letters.index(c) for c in domain]
    x = torch.tensor(leaf("embedding_4", "embeddings")[ids]).transpose(1, 2)
    kernel = torch.tensor(leaf("conv1d_4", "kernel")).permute(2, 1, 0)
    x = torch.relu(torch.conv1d(x, kernel, torch.tensor(leaf("conv1d_4", "bias")), padding=1))
    xs = torch.max_pool1d(x, 2).permute(2, 0, 1).numpy()
    arrays = {
        f"lstm/{name}": leaf("lstm_4", name) for name in ("kernel", "recurrent_kernel", "bias")
    }
    model = convert.keras.read(arrays, prefix="lstm")
    w, b = leaf("dense_4", "kernel"), leaf("dense_4", "bias")

    def head(outputs: Any, np_: Any) -> Any:
        h = outputs[-1]
        logit = h @ np_.asarray(w, dtype=h.dtype) + np_.asarray(b, dtype=h.dtype)
        return np_.log(1 + np_.exp(-logit)).sum()

    return Net(model, xs, None, head)


def silero(folder: pathlib.Path) -> Net:
    """A voice detector: an LSTM cell over 32 ms of sound each; read at its last step."""
    import torch
    from safetensors.numpy import load_file

    arrays = load_file(folder / "silero_vad" / "data" / "silero_vad_16k.safetensors")
    own = {f"{name}_l0": arrays[f"lstm_cell.{name}"]
           for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
    model = convert.torch.read(own)
    T, chunk = 100, 512
    sounds = [voice(seed, T * chunk + 64) for seed in range(4)]
    put = lambda name: torch.tensor(arrays[name])  # noqa: E731
    found = []
    for t in range(T):  # 64 samples of context, then the chunk
        part = np.stack([sound[t * chunk : (t + 1) * chunk + 64] for sound in sounds])
        x = torch.nn.functional.pad(torch.tensor(part)[:, None], (0, 64), mode="reflect")
        x = torch.conv1d(x, put("stft_conv.weight"), stride=128)
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        for number, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
            name = f"conv{number}"
            x = torch.conv1d(x, put(f"{name}.weight"), put(f"{name}.bias"), stride, padding=1)
            x = torch.relu(x)
        found.append(x[..., -1].numpy())

    def head(outputs: Any, np_: Any) -> Any:
        h = outputs[-1]
        w = np_.asarray(arrays["final_conv.weight"][0, :, 0], dtype=h.dtype)
        logit = (h * (h > 0)) @ w + float(arrays["final_conv.bias"][0])
        return np_.log(1 + np_.exp(-logit)).sum()

    return Net(model, np.stack(found).astype(np.float32), None, head)


def beatnet(folder: pathlib.Path) -> Net:
    """A tracker of beats: two LSTM layers over spectra of sound; read at its last step."""
    import torch

    file = folder / "BeatNet" / "models" / "model_1_weights.pt"
    arrays = {name: leaf.numpy() for name, leaf in
              torch.load(file, weights_only=True, map_location="cpu").items()}  # fmt: skip
    model = convert.torch.read(arrays, prefix="lstm")
    T = 250
    x = torch.tensor(np.stack([spectra(clicks(bpm, T), T) for bpm in (90, 120)]))  # (B, T, 272)
    B = len(x)
    put = lambda name: torch.tensor(arrays[name])  # noqa: E731
    x = torch.conv1d(x.reshape(B * T, 1, -1), put("conv1.weight"), put("conv1.bias"))
    x = torch.max_pool1d(torch.relu(x), 2).reshape(B * T, -1)
    x = (x @ put("linear0.weight").T + put("linear0.bias")).reshape(B, T, -1)

    def head(outputs: Any, np_: Any) -> Any:
        h = outputs[-1]
        put = lambda name: np_.asarray(arrays[name], dtype=h.dtype)  # noqa: E731
        return nll(h @ put("linear.weight").T + put("linear.bias"), np_)

    return Net(model, x.transpose(0, 1).numpy().astype(np.float32), None, head)


def voice(seed: int, count: int) -> np.ndarray:
    """Bursts of harmonics with a moving pitch, and noise: about what speech is to a detector."""
    rng, t = np.random.default_rng(seed), np.arange(count) / 16000
    pitch = 120 + 40 * seed + 20 * np.sin(2 * np.pi * 3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    bursts = np.clip(np.sin(2 * np.pi * (1.5 + seed / 3) * t + seed), 0, 1)
    return (0.1 * bursts * tone + 0.003 * rng.normal(size=count)).astype(np.float32)


def clicks(bpm: float, frames: int) -> np.ndarray:
    """A metronome with a decaying tone, 22,050 samples a second."""
    count = 441 * frames + 2048
    t = np.arange(count) / 22050
    since = t % (60 / bpm)
    return np.exp(-30 * since) * np.sin(2 * np.pi * 880 * t) + 0.001 * np.sin(7919 * t**2)


def spectra(sound: np.ndarray, frames: int) -> np.ndarray:
    """log₁₀(1 + magnitude) in 136 bands of a logarithmic scale, and its rises, `(T, 272)`."""
    window = np.hanning(1411)
    edges = np.geomspace(30, 17000 * 22050 / 34100, 138) / 22050 * 1411
    rows = []
    for t in range(frames):
        size = np.abs(np.fft.rfft(window * sound[441 * t : 441 * t + 1411]))
        bins = np.arange(len(size))
        bands = [np.interp(bins, [a, b, max(c, b + 1)], [0, 1, 0], 0, 0) @ size
                 for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)]  # fmt: skip
        rows.append(np.log10(1 + np.array(bands)))
    rows = np.stack(rows)
    rises = np.maximum(np.diff(rows, axis=0, prepend=rows[:1]), 0)
    return np.concatenate([rows, rises], 1).astype(np.float32)


def padded(table: np.ndarray, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a table `(T, B, D)`, and the lengths."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), int)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return np.asarray(table[ids], np.float32).swapaxes(0, 1), lengths


def nll(logits: Any, np_: Any) -> Any:
    """-log of the likeliest class of each row, summed."""
    top = logits.max(-1)
    top = getattr(top, "values", top)
    return (np_.log(np_.exp(logits - top[:, None]).sum(-1))).sum()


def by_torch(net: Net) -> np.ndarray:
    """log ‖∂loss/∂x‖ `(T, B)` in float64, by torch's own modules and autograd."""
    import torch

    first = net.model.layers[0]
    kind = torch.nn.GRU if net.model.cell.name == "gru" else torch.nn.LSTM
    H = first.forward.w_hh.shape[1]
    both = first.reverse is not None
    module = kind(net.xs.shape[2], H, len(net.model.layers), bidirectional=both).double()
    leaves = convert.torch.write(net.model)
    module.load_state_dict({
        name.removeprefix("lstm."): torch.tensor(np.asarray(leaf)).double()
        for name, leaf in leaves.items() if ("weight_" in name or "bias_" in name) and "_l" in name
    })  # fmt: skip
    xs = torch.tensor(net.xs, dtype=torch.float64, requires_grad=True)
    read: Any = xs
    if net.lengths is not None:
        read = torch.nn.utils.rnn.pack_padded_sequence(
            xs, torch.tensor(net.lengths), enforce_sorted=False
        )
    outputs = module(read)[0]
    if net.lengths is not None:
        outputs = torch.nn.utils.rnn.pad_packed_sequence(outputs)[0]
    net.head(outputs, torch).backward()
    with np.errstate(divide="ignore"):
        return np.log(xs.grad.norm(dim=-1).numpy())


def share_of(logs: np.ndarray, lengths: np.ndarray, read: np.ndarray) -> float:
    """Of the steps up to `read`, from the farthest on that has 1 % of the nearest tenth; median."""
    found = []
    for b, (_, r) in enumerate(zip(lengths, read, strict=True)):
        own = logs[: r + 1, b]
        near = own[-max(-(-len(own) // 10), 1) :].max()
        felt = np.flatnonzero(own > near + np.log(0.01))
        found.append((len(own) - felt[0]) / len(own) if felt.size else 0.0)
    return sorted(found)[round((len(found) - 1) / 2)]  # at the nearest rank, as in a diagnosis


NETS = {"g2p_en": g2p_en, "g2pM": g2pm, "dgaintel": dgaintel, "silero-vad": silero,
        "BeatNet": beatnet}  # fmt: skip


def told(flow: Any) -> dict[str, Any]:
    """What a diagnosis says."""
    advice = [each for each in flow.advice if each.illness]
    return {
        "shares": [None if r.share.median is None else round(r.share.median, 3)
                   for r in flow.summary().net],
        "courses": [str(reading.course) for reading in flow.summary().net],
        "illnesses": [f"{each.illness}, {each.layer}" for each in advice],
        "tried": [None if each.after is None else [each.before.horizon, each.after.horizon]
                  for each in advice],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path, help="where pip put the packages")
    parser.add_argument("--only", choices=list(NETS), help="one of them")
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for the figures")
    options = parser.parse_args()
    rows = {}
    for name, make in NETS.items():
        if options.only not in (None, name):
            continue
        net = make(options.folder)
        T, B, D = net.xs.shape
        lengths = np.full(B, T) if net.lengths is None else net.lengths
        given = {} if net.lengths is None else {"lengths": net.lengths}
        layers = [jax.tree.map(jnp.asarray, layer) for layer in net.model.layers]

        def loss(states: Any, net: Net = net) -> Any:
            return net.head(jaxrnn.layers.outputs(states), jnp)

        middle = layers[0].reverse is not None
        row = {
            "size": f"{net.model.cell.name}, {len(layers)} layers{', both ways' * middle}, "
            f"T={T}, B={B}, D={D}, H={layers[0].forward.w_hh.shape[1]}",
            "without a loss": told(jaxrnn.diagnose(net.model.cell, layers, net.xs, **given)),
            "with its loss": told(jaxrnn.diagnose(net.model.cell, layers, net.xs, loss, **given)),
        }
        logs = by_torch(net)
        read = lengths // 2 if middle else lengths - 1
        row["by torch"] = [share_of(logs, lengths, read)]
        if middle:
            back = np.stack([np.concatenate([logs[:n, b][::-1], logs[n:, b]])
                             for b, n in enumerate(lengths)], 1)  # fmt: skip
            row["by torch"].append(share_of(back, lengths, lengths - 1 - read))
        falls = [share < 0.4 for share in row["without a loss"]["shares"]]
        row["contradicted"] = any(
            fall and share >= 0.5 for fall, share in zip(falls, row["by torch"], strict=True)
        )
        rows[name] = row
        print(f"{name}: {json.dumps(row, ensure_ascii=False)}")
    if options.out:
        text = {"environment": timing.environment(), "nets": rows}
        options.out.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
