"""The report: one file, drawn in a real browser, its numbers those of the diagnosis."""

import html
import html.parser
import json
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import activations, report
from jaxrnn.diagnosis.summary import median_curve
from jaxrnn.nets.layers import Layer
from tests.support.modes import WIDEST
from tests.support.profiles import short

T, B, D, H = 30, 6, 3, 5
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip


def init(cell, dtype=WIDEST):
    params = jax.jit(lambda key: cell.init(key, D, H, dtype=dtype))(jax.random.key(0))
    return jax.tree.map(np.asarray, params)


def diagnosed(kind):
    xs = np.random.default_rng(1).normal(size=(T, B, D))
    if kind == "lstm":
        cell = jaxrnn.lstm()
        both, lengths = [Layer(init(cell), init(cell))], jnp.array([30, 7, 30, 1, 12, 29])
        return diagnose(cell, both, xs, lengths=lengths)
    if kind in ("overflow", "nothing finite"):
        cell = jaxrnn.rnn(activations.relu)
        params = jax.tree.map(lambda leaf: 1e6 * np.abs(leaf), init(cell, jnp.float32))
        xs = np.abs(xs) if kind == "overflow" else np.full_like(xs, np.nan)
        return diagnose(cell, params, xs.astype("float32"))
    cell = {"gru": jaxrnn.gru(), "dead": jaxrnn.rnn(activations.relu)}[kind]
    params = init(cell)
    params = params._replace(b=params.b - 20) if kind == "dead" else params
    return diagnose(cell, params, xs, loss=jax.jit(lambda states: (states.h**2).sum()))


def diagnose(cell, params, xs, **options):
    return jaxrnn.diagnose(cell, jax.tree.map(jnp.asarray, params), xs, **options)


@pytest.fixture(scope="module")
def flows():
    return {kind: diagnosed(kind) for kind in ("lstm", "gru", "dead", "overflow", "nothing finite")}


@pytest.fixture(scope="module")
def text_of_all(flows):
    return report.html(flows)


class Page(html.parser.HTMLParser):
    """Counts elements, notes what a page would fetch, and that every element is closed."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.count, self.fetched, self.labels, self.ids = [], {}, [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.labels += [attrs.get("aria-label", "")] if tag == "svg" else []
        for name in ("src", "href", "xlink:href", "action"):
            value = attrs.get(name)
            if value and not value.startswith(("#", "data:")):
                self.fetched.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_with_every_figure_named(flows, text_of_all):
    text, page = text_of_all, Page(text_of_all)
    assert page.open == []
    assert page.fetched == []
    assert not re.search(r"url\((?!#|data:)|@import|<script", text)
    assert page.count["figure"] == page.count["figcaption"] == page.count["svg"]
    assert all(len(label) > 20 for label in page.labels)
    assert page.count["svg"] >= 18
    assert "nan" not in " ".join(page.labels).lower()
    for flow in flows.values():
        for advice in flow.advice:
            assert advice.finding.split("<")[0][:30].split("'")[0] in text


def test_the_numbers_are_those_of_the_diagnosis(flows):
    data = report.data(flows)
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data
    assert data["schema"] == 2
    for name, flow in flows.items():
        net = data["nets"][name]
        assert [each["illness"] for each in net["advice"]] == [a.illness for a in flow.advice]
        for curves, layer, numbers in zip(net["curves"], flow.layers, net["layers"], strict=True):
            want = median_curve(layer.contribution_by_lag, flow.lengths)
            got = [np.nan if v is None else v for v in curves["log_contribution_by_lag"]]
            np.testing.assert_allclose(got, np.where(np.isfinite(want), want, np.nan), rtol=1e-13)
            if layer.exponents is not None:
                leading = float(np.mean(np.asarray(layer.exponents.value)[:, 0]))
                got = numbers["exponents"][0]
                assert (
                    got == pytest.approx(leading, rel=1e-12)
                    if np.isfinite(leading)
                    else got is None
                )
            for gate, statistics in (layer.gates or {}).items():
                assert (
                    numbers["gates"][gate]["mean"]
                    == pytest.approx(float(np.mean(statistics.mean)), rel=1e-12, nan_ok=True)
                    or numbers["gates"][gate]["mean"] is None
                )


def test_write_makes_the_folder_and_both_files(flows, tmp_path):
    paths = report.write(flows["gru"], tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.html", "report.json"]
    assert list(json.loads(paths[1].read_text())["nets"]) == ["model"]
    assert paths[0].read_text(encoding="utf-8") == report.html(flows["gru"])


@pytest.mark.parametrize("flows", [3, {}, {"a": 3}, None])
def test_what_is_no_diagnosis_is_refused(flows):
    with pytest.raises(TypeError, match=r"^flows: expected a GradientFlow"):
        report.html(flows)


PROBE = """
<script>
const errors = [];
addEventListener("error", e => errors.push(String(e.message || e.target.tagName)), true);
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("figure svg")].map(svg => {
    const marks = [...svg.querySelectorAll("path, image, use")].filter(m => {
      const b = m.getBoundingClientRect(); return b.width + b.height > 0; });
    const b = svg.getBoundingClientRect();
    return [b.width, b.height, marks.length, svg.querySelectorAll("text").length];
  });
  const page = document.documentElement;
  parent.postMessage(JSON.stringify({ errors, boxes, width: innerWidth, scroll: page.scrollWidth,
    colour: getComputedStyle(document.body).backgroundColor }), "*");
});
</script></head>"""

# A window has a least width, a frame has none.
FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><script>
addEventListener("message", e => {{
  const out = document.createElement("pre"); out.id = "found"; out.textContent = e.data;
  document.body.append(out);
}});
</script><body><iframe style="width: {width}px; border: 0" srcdoc="{page}"></iframe>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("which", ["one", "several"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
@short(dark=False, width=390, which="one")
@short(dark=True, width=390, which="several")
def test_a_browser_draws_every_figure_and_scrolls_only_down(
    flows, text_of_all, width, dark, which, tmp_path
):
    text = text_of_all if which == "several" else report.html(flows["lstm"])
    page = tmp_path / "page.html"
    probed = html.escape(text.replace("</head>", PROBE, 1))
    page.write_text(FRAME.format(width=width, page=probed), encoding="utf-8")
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    run = subprocess.run(
        [CHROMIUM, *QUIET, *scheme, f"--user-data-dir={tmp_path / 'user'}",
         "--window-size=1400,1000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in run.stderr, run.stderr
    said = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)[1]
    found = json.loads(html.unescape(said))
    assert found["errors"] == []
    assert found["width"] == width
    assert found["scroll"] <= width
    assert len(found["boxes"]) == text.count("<figure>")
    for drawn_width, height, marks, texts in found["boxes"]:
        assert drawn_width > 200
        assert height > 100
        assert marks > 5
        assert texts > 3
    bright = sum(map(int, re.findall(r"\d+", found["colour"])[:3])) > 380
    assert bright != dark
