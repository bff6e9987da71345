"""Nets with a planted illness, and healthy ones: what a diagnosis says, and what its remedies do.

    python -m tests.support.planted_nets [--out F.json]

An ill net must be named rightly. Its remedy is applied and the net diagnosed again: the illness
must be gone, the horizon must be the promised one, and 1 - mean of a gate within 5 %.
"""

import argparse
import datetime
import json
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

import jaxrnn
from jaxrnn import activations
from jaxrnn.nets.layers import Layer

T, B, D, H = 80, 6, 3, 16


class Planted(NamedTuple):
    """A net, its batch, and what must be found."""

    cell: Any
    net: list[Layer]
    xs: Any
    illness: set[str]


class Found(NamedTuple):
    """What was found, before and after the remedy."""

    named: set[str]
    after: set[str]
    cured: bool
    promised: bool
    words: str


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def orthogonal(seed=0):
    return np.linalg.qr(normal(H, H, seed=seed))[0]


def stack(cell, depth, both=False, seed=0, **changed):
    """Layers as `init` draws them, each changed by `changes`."""
    net = []
    for index in range(depth):
        size = D if index == 0 else H * (1 + both)
        keys = jax.random.split(jax.random.key(seed + index), 2)
        sides = [changes(cell, cell.init(key, size, H), **changed) for key in keys[: 1 + both]]
        net.append(Layer(*sides))
    return net


def changes(cell, params, scale=1.0, inputs=1.0, recurrent=1.0, w_hh=None, **biases):
    """Weights times a scale, blocks of b at a value."""
    b = scale * np.array(params.b)
    for gate, value in biases.items():
        b.reshape(len(cell.gates), -1)[cell.gates.index(gate)] = value
    new = {
        "w_ih": scale * inputs * np.asarray(params.w_ih),
        "w_hh": scale * recurrent * np.asarray(params.w_hh) if w_hh is None else w_hh,
        "b": b,
    }
    return params._replace(**{k: jax.device_put(v.astype(np.float32)) for k, v in new.items()})


def noise(size=1.0, seed=1):
    return (size * normal(T, B, D, seed=seed)).astype(np.float32)


def walks(size=50.0, offset=4000.0):
    """Prices: a random walk far from 0."""
    return (size * np.cumsum(normal(T, B, D, seed=2), 0) + offset).astype(np.float32)


def ill():
    """Name ↦ Planted."""
    found = {}
    xs = noise()

    def plant(name, cell, net, illness, data=xs):
        found[name] = Planted(cell, net, data, {illness} if isinstance(illness, str) else illness)

    lstm, gru, rnn = jaxrnn.lstm(), jaxrnn.gru(), jaxrnn.rnn()
    relu, linear = jaxrnn.rnn(activations.relu), jaxrnn.rnn(activations.identity)
    keeping = {"lstm": (lstm, "f", "forget"), "gru": (gru, "z", "update")}
    for kind, (cell, gate, title) in keeping.items():
        for depth, both in ((1, False), (2, False), (3, False), (1, True), (2, True)):
            name = f"{kind}, {depth} layer{'s' * (depth > 1)}{' both ways' * both}"
            plant(
                f"{name}: {gate} shut",
                cell,
                stack(cell, depth, both, **{gate: -5.0}),
                f"{title} gates shut",
            )
            plant(
                f"{name}: {gate} half open",
                cell,
                stack(cell, depth, both, scale=0.3, **{gate: 0.0}),
                "vanishing",
            )
    for cell, gate, title in (
        (jaxrnn.peephole_lstm(), "f", "forget"), (jaxrnn.cifg(), "f", "forget"),
        (jaxrnn.janet(), "f", "forget"), (jaxrnn.ugrnn(), "g", "update"),
    ):  # fmt: skip
        plant(
            f"{cell.name}: {gate} shut", cell, stack(cell, 1, **{gate: -5.0}), f"{title} gates shut"
        )
    for depth in (1, 2):
        some = f"{depth} layer{'s' * (depth > 1)}"
        plant(
            f"lstm, {some}: prices unscaled",
            lstm,
            stack(lstm, depth),
            "inputs out of scale",
            walks(),
        )
        plant(
            f"lstm, {some}: inputs 100 times too large",
            lstm,
            stack(lstm, depth),
            "inputs out of scale",
            noise(100.0),
        )
        plant(
            f"gru, {some}: prices unscaled", gru, stack(gru, depth), "inputs out of scale", walks()
        )
    plant("lstm: w_ih three times", lstm, stack(lstm, 1, inputs=3.0), "vanishing")
    plant(
        "rnn: inputs saturate",
        rnn,
        stack(rnn, 1, inputs=20.0, w_hh=orthogonal()),
        "inputs out of scale",
    )
    plant("rnn: contracting", rnn, stack(rnn, 1, inputs=0.1, w_hh=0.5 * orthogonal()), "vanishing")
    plant(
        "rnn, 2 layers: contracting",
        rnn,
        stack(rnn, 2, inputs=0.1, w_hh=0.6 * orthogonal()),
        "vanishing",
    )
    plant(
        "rnn[identity]: contracting", linear, stack(linear, 1, w_hh=0.7 * orthogonal()), "vanishing"
    )
    plant(
        "rnn[identity], both ways: contracting",
        linear,
        stack(linear, 1, True, w_hh=0.8 * orthogonal()),
        "vanishing",
    )
    plant(
        "rnn[identity]: exploding",
        linear,
        stack(linear, 1, inputs=0.1, w_hh=1.3 * orthogonal()),
        "exploding",
    )
    plant("rnn: chaotic", rnn, stack(rnn, 1, inputs=0.05, w_hh=3 * normal(H, H) / 4), "exploding")
    plant("lstm: exploding", lstm, stack(lstm, 1, recurrent=20.0, f=1.0), "exploding")
    plant("gru, 2 layers: exploding", gru, stack(gru, 2, recurrent=8.0, z=-1.0), "exploding")
    plant("lstm: i shut", lstm, stack(lstm, 1, i=-6.0, f=5.0), "input gates shut")
    plant("lstm: o shut", lstm, stack(lstm, 1, o=-6.0, f=5.0), "output gates shut")
    plant(
        "lstm: i and f shut",
        lstm,
        stack(lstm, 1, i=-6.0, f=-6.0),
        {"input gates shut", "forget gates shut"},
    )
    plant("gru: z open", gru, stack(gru, 1, z=7.0), "update gates open")
    dead = stack(relu, 1, w_hh=orthogonal())
    b = np.where(np.arange(H) < 6, -20.0, 0.05).astype(np.float32)
    plant(
        "rnn[relu]: 6 units dead",
        relu,
        [Layer(dead[0].forward._replace(b=jax.device_put(b)))],
        "dead units",
    )
    return found


def healthy():
    """Name ↦ Planted, nothing to be found."""
    found = {}
    xs = noise()

    def plant(name, cell, net, data=xs):
        found[name] = Planted(cell, net, data, set())

    lstm, gru, rnn = jaxrnn.lstm(), jaxrnn.gru(), jaxrnn.rnn()
    linear = jaxrnn.rnn(activations.identity)
    for depth, both in ((1, False), (2, False), (3, False), (1, True), (2, True)):
        some = f"{depth} layer{'s' * (depth > 1)}{' both ways' * both}"
        plant(f"lstm, {some}", lstm, stack(lstm, depth, both, scale=0.3, f=5.0))
        plant(f"gru, {some}", gru, stack(gru, depth, both, scale=0.3, z=4.0))
    # A speaker encoder: short memory below, long above.
    below, above = stack(lstm, 2, f=-1.0), stack(lstm, 3, scale=0.3, f=5.0)
    plant("lstm, 3 layers: short, short, long", lstm, [*below, above[2]])
    plant("lstm, 2 layers: short, long", lstm, [below[0], above[1]])
    plant("lstm, 2 layers: long, short", lstm, [above[0], stack(lstm, 2, f=-1.0)[1]])
    plant(
        "gru, 2 layers: short, long",
        gru,
        [stack(gru, 1, z=-1.0)[0], stack(gru, 2, scale=0.3, z=4.0)[1]],
    )
    plant("rnn: orthogonal", rnn, stack(rnn, 1, inputs=0.02, w_hh=orthogonal()))
    plant("rnn[identity]: orthogonal", linear, stack(linear, 1, inputs=0.1, w_hh=orthogonal()))
    plant(
        "rnn[identity], 2 layers: orthogonal",
        linear,
        stack(linear, 2, inputs=0.1, w_hh=orthogonal()),
    )
    for cell, gate in ((jaxrnn.peephole_lstm(), "f"), (jaxrnn.cifg(), "f"), (jaxrnn.janet(), "f")):
        plant(cell.name, cell, stack(cell, 1, scale=0.3, **{gate: 4.0}))
    return found


def tried(planted):
    """The diagnosis, all of its remedies applied, and the diagnosis again."""
    cell, net, xs, _ = planted
    flow = jaxrnn.diagnose(cell, net, xs)
    named = {each.illness for each in flow.advice if each.illness}
    given = [each for each in flow.advice if each.illness]
    better, promised = net, True
    for advice in given:
        promised &= advice.after is not None
        if advice.after is None:
            continue
        better = jaxrnn.diagnosis.cured(cell, net, advice)  # those before it are in its changes
        again = jaxrnn.diagnose(cell, better, xs)
        (read,) = [each for each in again.summary().net if each.name == advice.after.read]
        promised &= read.horizon_1_percent.median == advice.after.horizon
        layers = {layer.name: layer for layer in again.summary().layers}
        for name, told in advice.after.figures:
            if name.startswith("mean"):
                gate, _, layer = name.removeprefix("mean ").partition(" of ")
                mean = layers[layer or "layer 1"].gates[gate].mean
                promised &= abs((1 - mean) / (1 - told) - 1) < 0.05
    after = {each.illness for each in jaxrnn.diagnose(cell, better, xs).advice if each.illness}
    return Found(named, after, not after, promised, str(flow.advice[0]))


def judged(planted, found):
    """Whether all was as it must be."""
    if not planted.illness:
        return found.named == set() and "Nothing to do" in found.words
    return found.named == planted.illness and found.cured and found.promised


def main():
    """Try all, print a table, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="a JSON file for the figures")
    parser.add_argument("--only", default="", help="a part of the names")
    given = parser.parse_args()
    rows = []
    for group, nets in (("ill", ill()), ("healthy", healthy())):
        for name, planted in tqdm(nets.items(), desc=group):
            if given.only not in name:
                continue
            found = tried(planted)
            right = judged(planted, found)
            rows.append(
                {
                    "group": group,
                    "net": name,
                    "planted": sorted(planted.illness),
                    "named": sorted(found.named),
                    "after": sorted(found.after),
                    "promised": found.promised,
                    "right": right,
                    "words": found.words,
                }
            )
            if not right:
                tqdm.write(f"WRONG {name}: {rows[-1]}")
    for group in ("ill", "healthy"):
        own = [row for row in rows if row["group"] == group]
        print(f"{group}: {sum(row['right'] for row in own)} of {len(own)} right")
    if given.out:
        made = {"date": str(datetime.date.today()), "jax": jax.__version__}
        with open(given.out, "w") as file:
            json.dump({"made": made, "rows": rows}, file, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()
