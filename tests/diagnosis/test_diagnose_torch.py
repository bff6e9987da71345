"""A torch LSTM trained, saved and diagnosed by the command, against torch's own gradients."""

import json

import jax
import numpy as np
import pytest

import jaxrnn
from jaxrnn import layers
from jaxrnn.cli import main

torch = pytest.importorskip("torch")
# What torch warns of is its own to settle.
pytestmark = pytest.mark.filterwarnings("ignore")

T, B, D, H = 40, 16, 2, 12


def trained(steps=60):
    """To say the sign of the first input at the end: a task that wants memory."""
    torch.manual_seed(0)
    net = torch.nn.LSTM(D, H, num_layers=2, bidirectional=False)
    out = torch.nn.Linear(H, 1)
    optimizer = torch.optim.Adam([*net.parameters(), *out.parameters()], lr=0.02)
    for _ in range(steps):
        xs = torch.randn(T, B, D)
        loss = torch.nn.functional.soft_margin_loss(out(net(xs)[0][-1])[:, 0], xs[0, :, 0].sign())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


@pytest.fixture(scope="module")
def net():
    return trained()


def test_the_command_finds_in_a_trained_lstm_what_torch_finds(net, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    save_file(net.state_dict(), "model.safetensors")
    xs = torch.randn(T, B, D)
    np.save("xs.npy", xs.numpy())
    with pytest.raises(SystemExit) as exit_:
        main(("diagnose", "--weights", "model.safetensors", "--data", "xs.npy", "--out", "out"))
    assert exit_.value.code == 0
    (found,) = json.loads((tmp_path / "out/report.json").read_text())["nets"].values()
    assert [layer["name"] for layer in found["layers"]] == ["layer 1", "layer 2"]

    # The forget gates of the first layer, a step at a time.
    w = {name: leaf.detach().double() for name, leaf in net.state_dict().items()}
    h = c = torch.zeros(B, H, dtype=torch.float64)
    forget = []
    for x in xs.double():
        z = x @ w["weight_ih_l0"].T + h @ w["weight_hh_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
        i, f, g, o = z.split(H, dim=1)
        forget.append(f.sigmoid())
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    mean = float(torch.stack(forget).mean())
    assert found["layers"][0]["gates"]["f"]["mean"] == pytest.approx(mean, rel=0, abs=1e-6)


def test_adjoints_of_a_loss_are_torchs(net):
    """‖∂E/∂h¹ₖ‖ through layer 2, by torch's gradient of what layer 2 reads."""
    model = jaxrnn.convert.torch.read(
        {name: leaf.numpy().astype("float64") for name, leaf in net.state_dict().items()}
    )
    double = torch.nn.LSTM(D, H, num_layers=2).double()
    double.load_state_dict(net.state_dict())
    xs = torch.randn(T, B, D, dtype=torch.float64)
    flow = jaxrnn.diagnose(
        model.cell,
        model.layers,
        np.asarray(xs),
        lambda states: (layers.outputs(states)[-1] ** 2).sum(),
    )
    xs.requires_grad_(True)
    out, _ = double(xs)
    (out[-1] ** 2).sum().backward()
    # ∂E/∂x = W_ihᵀ of what enters the gates: compared through the library's own adjoints.
    runs, direct = layers.direct_adjoints(
        layers.runs(model.cell, model.layers, np.asarray(xs.detach())),
        lambda states: (layers.outputs(states)[-1] ** 2).sum(),
    )
    first = runs[0].forward
    states = lambda x: jaxrnn.unroll(first.cell, first.params, x)  # noqa: E731
    (into_xs,) = jax.vjp(states, first.xs)[1](direct[0].forward)
    want = xs.grad.numpy()
    np.testing.assert_allclose(into_xs, want, rtol=0, atol=1e-12 * np.abs(want).max())
    # The gradient of a batch of one is the example's own.
    double.zero_grad()
    one, _ = double(xs.detach()[:, :1])
    (one[-1] ** 2).sum().backward()
    for index, layer in enumerate(flow.layers):
        # torch has two biases, whose gradients are the same; the library has one.
        leaves = ("weight_ih", "weight_hh", "bias_ih")
        own = [dict(double.named_parameters())[f"{leaf}_l{index}"].grad for leaf in leaves]
        size = float(sum((g**2).sum() for g in own).sqrt())
        np.testing.assert_allclose(np.exp(layer.gradient[0]), size, rtol=1e-12)
