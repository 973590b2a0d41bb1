"""``mirage eval report``: one page about an evaluation that needs nothing beside itself, no network and no script."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mirage_sim.evaluation.scores import SHARP
from mirage_sim.evaluation.summary import load_result, scores_of
from mirage_sim.io import atomic_write

COMMANDS = ("fidelity", "revisit")
COLUMNS = {
    "": "latent memory",
    "_rgb_memory": "RGB memory",
    "_no_memory": "no memory",
    "_true_depth": "true depth",
    "_first_frame": "first frame repeated",
}
FIGURES = {
    "psnr_1": "PSNR after 1 step, dB",
    "psnr_16": "PSNR after 16 steps, dB",
    "seen_psnr_1": "PSNR of what was in the first frame, 1 step, dB",
    "seen_psnr_16": "PSNR of what was in the first frame, 16 steps, dB",
    "sharpness_1": "sharpness after 1 step",
    "sharpness_4": "sharpness after 4 steps",
    "sharpness_16": "sharpness after 16 steps",
    "absrel_1": "relative depth error after 1 step",
    "absrel_16": "relative depth error after 16 steps",
    "revisit_a": "A again, against truth (revisit_a), dB",
    "revisit_ab": "B again, against B (revisit_ab), dB",
    "sharpness_b": "sharpness of the pictures at B",
    "kd_lite0": "kernel distance to the true images (kd_lite0)",
}
GAINS = {
    "gain_1": "PSNR after 1 step, dB",
    "gain_16": "PSNR after 16 steps, dB",
    "gain_revisit_a": "A again, against truth, dB",
    "gain_revisit_ab": "B again, against B, dB",
}
QUALITY = 92  # of JPEG; these pictures are looked at for their sharpness
MARK = '<td class="num">{}</td>'
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c22; background: #fff; max-width: 1280px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; } h3 { margin-bottom: .3rem; }
table { border-collapse: collapse; margin: 1rem 0; } caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #e3e3e8; text-align: left; vertical-align: top; }
thead th { background: #f3f3f6; } td.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
small { color: #555; display: block; } .warn { color: #a33000; } .facts td { padding: .1rem .8rem .1rem 0; border: 0; }
img, video { max-width: 100%; height: auto; display: block; } figure { margin: 1rem 0; }
figcaption { color: #444; font-size: .9rem; }
.note { background: #fff6e5; padding: .6rem 1rem; border-left: 4px solid #e69f00; }
p { max-width: 60rem; } .wide { overflow-x: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 600px), 1fr)); gap: 0 1rem; }
 summary { cursor: pointer; } code { background: #f3f3f6; padding: 0 .2rem; }
"""


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _figure(content: bytes, caption: str, kind: str = "image/png") -> str:
    said = html.escape(caption)
    return f'<figure><img alt="{said}" src="{_uri(kind, content)}"><figcaption>{said}</figcaption></figure>'


def _sheet(path: Path) -> bytes:
    """A contact sheet as JPEG without colour subsampling: a quarter of the bytes, and no edge is blurred."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    """A mean above its interval; sharpness outside of the band says so."""
    if name not in metrics:
        return MARK.format("")
    mean, low, high = (metrics[key] for key in (name, f"{name}_lo", f"{name}_hi"))
    note = ""
    if name.startswith("sharpness") and mean is not None and not SHARP[0] <= mean <= SHARP[1]:
        note = f'<small class="warn">{"blurred" if mean < SHARP[0] else "too sharp"}</small>'
    return MARK.format(f"{_number(mean)}<small>{_number(low)} to {_number(high)}</small>{note}")


def _table(caption: str, metrics: Mapping[str, Any], rows: Mapping[str, str], columns: Mapping[str, str]) -> str:
    """Rows by stem, columns by suffix; those without any mark are left out."""
    used = {suffix: title for suffix, title in columns.items() if any(stem + suffix in metrics for stem in rows)}
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in ("", *used.values()))
    body = "".join(
        f'<tr><th scope="row">{html.escape(title)}</th>{"".join(_cell(metrics, stem + suffix) for suffix in used)}</tr>'
        for stem, title in rows.items()
        if any(stem + suffix in metrics for suffix in used)
    )
    return (
        f'<div class="wide"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _all_marks(metrics: Mapping[str, Any]) -> str:
    names = [name for name in metrics if not (name.endswith(("_lo", "_hi")) and name[:-3] in metrics)]
    body = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td>"
        + "".join(MARK.format(html.escape(str(metrics.get(name + end, "")))) for end in ("", "_lo", "_hi"))
        + "</tr>"
        for name in names
    )
    return (
        '<details><summary>Every mark by its name</summary><div class="wide"><table>'
        "<thead><tr><th>mark</th><th>mean</th>"
        f"<th>_lo</th><th>_hi</th></tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _facts(result: Mapping[str, Any]) -> str:
    metrics = result["marks"]
    counts = " and ".join(f"{metrics[kind]} {kind}" for kind in ("walks", "circuits") if kind in metrics)
    rows = {
        "Measured": f"mirage eval {result.get('command', 'fidelity')}, protocol {result['protocol']}, {counts}",
        "Commit": result.get("commit", "unknown"),
        "Model": f"fingerprint {result['model']}" if "model" in result else "unknown",
        "Machine": f"{result.get('cpu', 'unknown')}; torch {result.get('torch', 'unknown')}",
        "When": f"{result.get('date', 'unknown')}, {result.get('seconds', 0) / 60:.1f} minutes"
        + (f" for {result['driven']} drives" if "driven" in result else ""),
    }
    body = "".join(f"<tr><td>{key}</td><td>{html.escape(str(value))}</td></tr>" for key, value in rows.items())
    return f'<table class="facts"><tbody>{body}</tbody></table>'


def _warnings(metrics: Mapping[str, Any]) -> Iterable[str]:
    """What must be said beside the figures, so that blur cannot pass for memory."""
    sharpness = metrics.get("sharpness_b")
    if sharpness is not None and not SHARP[0] <= sharpness <= SHARP[1]:
        yield (
            f'<p class="note">sharpness_b is {sharpness:.2f}, outside {SHARP[0]} to {SHARP[1]}: revisit_ab does not '
            "count, because blurred pictures agree with each other whatever they show.</p>"
        )
    if (drop := metrics.get("unseen_env_drop")) is not None:
        low, high = metrics["unseen_env_drop_lo"], metrics["unseen_env_drop_hi"]
        yield (
            f"<p>In the kinds of environment that training never saw, the gain over the first frame at 16 steps is "
            f"<b>{drop:.2f} dB</b> smaller ({low:.2f} to {high:.2f}, unpaired; <code>unseen_env_drop</code>).</p>"
        )

    if (drop := metrics.get("unseen_furniture_drop")) is not None:
        low, high = metrics["unseen_furniture_drop_lo"], metrics["unseen_furniture_drop_hi"]
        yield (
            f"<p>Among furniture that training never saw, the gain over the first frame at 16 steps is <b>{drop:.2f} dB"
            f"</b> smaller ({low:.2f} to {high:.2f}) than in the same homes with the nearest seen pieces, paired "
            "(<code>unseen_furniture_drop</code>).</p>"
        )


def _plots(result: Mapping[str, Any]) -> Iterable[str]:
    try:
        from mirage_sim.evaluation import plots
    except ImportError as error:
        raise ImportError(f"the report's plots need matplotlib: pip install 'mirage_sim[report]' ({error})") from error
    band = "Bands and bars are 95 % bootstrap intervals."
    if walks := result["per_walk"]:
        scores = scores_of(walks)
        yield _figure(
            plots.plot_psnr(scores),
            f"PSNR against steps: the whole frame, the part seen from the start, the rest. {band}",
        )
        yield _figure(
            plots.plot_sharpness(scores),
            "Sharpness against steps, in the wanted band or not, and depth. PSNR alone rewards blur.",
        )
        yield _figure(plots.plot_environments(walks), f"Gains at 16 steps in each environment. {band}")
    if circuits := result["per_circuit"]:
        yield _figure(plots.plot_revisits(circuits), f"Coming back on the circuits A, B, A, B. {band}")


def _shown(folder: Path, kind: str, title: str, caption: str) -> Iterable[str]:
    """Video and contact sheets of the walks or circuits, where the run left them."""
    sheets = sorted(folder.glob(f"{kind}-*.png"))
    if not sheets:
        return
    yield f"<h3>{html.escape(title)}</h3><p>{html.escape(caption)}</p>"
    video = folder / f"{kind}s.mp4"
    if video.exists():
        yield f'<video controls muted loop playsinline src="{_uri("video/mp4", video.read_bytes())}"></video>'
    scores = (
        _figure(_sheet(sheet), sheet.stem.split("-", 1)[1].replace("-", ", scene "), "image/jpeg") for sheet in sheets
    )
    yield f'<div class="grid">{"".join(scores)}</div>' if kind == "circuit" else "\n".join(scores)


def _section(folder: Path, name: str, result: Mapping[str, Any]) -> str:
    metrics = result["marks"]
    gained = {suffix: f"over {title}" for suffix, title in COLUMNS.items() if suffix}
    parts: Sequence[str] = (
        f"<h2>mirage eval {name}</h2>",
        _facts(result),
        _table("Means, and 95 % bootstrap intervals over walks or circuits", metrics, FIGURES, COLUMNS),
        _table("Gains of the latent memory: paired differences on the same walks", metrics, GAINS, gained),
        *_warnings(metrics),
        _all_marks(metrics),
        "<h3>Plots</h3>",
        *_plots(result),
        *_shown(folder / name, "walk", "Walks", "The truth, and what was generated from the first frame alone."),
        *_shown(
            folder / name,
            "circuit",
            "Circuits",
            "Away from A to B, back to A, and to B again: each place should show twice the same.",
        ),
    )
    return "\n".join(parts)


def report(folder: Path) -> dict[str, Any]:
    """Write ``report.html`` into the output folder of an evaluation.

    Args:
        folder: with ``fidelity.json``, ``revisit.json`` or both, and the pictures beside them.

    Returns:
        ``page`` (path) and ``bytes``.

    Raises:
        ValueError: if the folder holds no result, or an unreadable one.
        ImportError: without matplotlib.
    """
    found = {name: folder / f"{name}.json" for name in COMMANDS if (folder / f"{name}.json").exists()}
    if not found:
        raise ValueError(f"{folder}: expected a folder with fidelity.json or revisit.json, as mirage eval leaves it")
    results = {name: load_result(path) for name, path in found.items()}
    sections = "\n".join(_section(folder, name, result) for name, result in results.items())
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fidelity of a learned world</title><style>{STYLE}</style></head><body>\n"
        "<h1>Fidelity of a learned world</h1>\n"
        "<p>A learned world was given the first frame and the true cameras of walks that it has never seen, and "
        "estimated depth by itself. What it showed is compared with what was there; "
        "sharpness 1 is as sharp as the truth.</p>\n"
        f"{sections}\n</body></html>\n"
    )
    path = folder / "report.html"
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return {"page": str(path), "bytes": len(page.encode())}
