"""Pictures for reports as inline SVG: small, in the page's own colours, legible on paper and on a phone.

`picture(draw, label)` runs `draw(figure, narrow)` twice, for wide and for narrow pages; the page's style shows one.
Text stays text, and ink, grid and background are the page's, so that a dark page has dark pictures. The other functions
here return such a `draw`. Colours are Okabe and Ito's, which colour-blind readers tell apart; dashes differ too.
"""

import html
import math
import re
import warnings

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
INK, GRID, PAPER = "#010203", "#040506", "#070809"  # stand-ins, replaced by the page's variables
VARIABLES = {INK: "var(--ink)", GRID: "var(--rule)", PAPER: "var(--paper)"}
WIDE, NARROW = 7.4, 3.7  # inches
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bringup",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def picture(draw, label, height=2.5, narrow_height=None):
    """A wide and a narrow SVG of one drawing; `label` says in words what it shows. Heights in inches."""
    wide = _svg(draw, label, WIDE, height, narrow=False)
    return wide + _svg(draw, label, NARROW, narrow_height or height, narrow=True)


def _svg(draw, label, width, height, narrow):
    from io import StringIO

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that matplotlib's font lacks: the browser has it
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure, narrow)
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _inline(out.getvalue(), label, "narrow" if narrow else "wide")


def _inline(svg, label, kind):
    """The SVG element alone, without what only a file needs; ids are its own on a page with several."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    view = re.search(r'viewBox="([^"]*)"', svg).group(1)
    body = svg[svg.index(">") + 1 :].replace("xlink:href", "href")
    body = re.sub(r"\n\s*", "\n", body)
    mine = f"s{abs(_checksum(label + kind)):x}-"
    body = re.sub(r'\bid="', f'id="{mine}', body)
    body = re.sub(r'href="#', f'href="#{mine}', body)
    body = body.replace("url(#", f"url(#{mine}")
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)  # the page's own font
    for stand_in, variable in VARIABLES.items():
        body = body.replace(stand_in, variable)
    return f'<svg class="{kind}" viewBox="{view}" role="img" aria-label="{html.escape(label)}">{body}'


def _checksum(text):
    import zlib

    return zlib.crc32(text.encode())


def _plain(text):
    """Text that matplotlib takes as it is, also where it has dollar signs."""
    return str(text).replace("$", r"\$")


# ---------------------------------------------------------------- drawings
def intervals(groups, low=0.0):
    """Rates with their intervals. groups: (title, bar or None, [(name, value, (low, high), colour)]), in fractions."""

    def draw(figure, narrow):
        heights = [len(rows) + 0.6 for _, _, rows in groups]
        grid = {"height_ratios": heights} if narrow else None
        shape = (len(groups), 1) if narrow else (1, len(groups))
        panels = figure.subplots(*shape, sharex=True, sharey=not narrow, squeeze=False, gridspec_kw=grid).ravel()
        for axes, (title, bar, rows) in zip(panels, groups):
            for y, (_, value, (start, end), colour) in enumerate(reversed(rows)):
                axes.plot([100 * start, 100 * end], [y, y], color=colour, linewidth=3, solid_capstyle="butt", alpha=0.5)
                axes.plot([100 * value], [y], "o", color=colour, markersize=7, clip_on=False)
            if bar is not None:
                axes.axvline(100 * bar, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
                title = f"{title} (bar {100 * bar:.0f} %)"
            axes.set(
                yticks=range(len(rows)),
                yticklabels=[_plain(r[0]) for r in reversed(rows)],
                ylim=(-0.6, len(rows) - 0.4),
            )
            axes.set_xlim(100 * low, 100)
            axes.set_title(_plain(title), loc="left", fontweight="bold")
            axes.grid(axis="x")
            axes.grid(visible=False, axis="y")
            axes.tick_params(left=False)
        for axes in panels[-1:] if narrow else panels:
            axes.set_xlabel("% of tokens")

    return draw


def strips(rows):
    """Hits and misses by position, one strip a row. rows: (name, [True or False, ...]); misses stand out."""

    def draw(figure, narrow):
        axes = figure.add_subplot()
        n = max(len(hits) for _, hits in rows)
        for y, (_, hits) in enumerate(reversed(rows)):
            axes.broken_barh(_runs(hits, True), (y - 0.22, 0.44), color=SKY, linewidth=0)
            axes.broken_barh(_runs(hits, False), (y - 0.4, 0.8), color=RED, linewidth=0)
        names = [_plain(name) for name, _ in reversed(rows)]
        axes.set(yticks=range(len(rows)), yticklabels=names, xlabel="position of the new token")
        axes.set_xlim(0, n)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)

    return draw


def _runs(hits, wanted):
    """(start, length) of each run of `wanted`."""
    runs, start = [], None
    for i, hit in enumerate([*hits, not wanted]):
        if bool(hit) is wanted and start is None:
            start = i
        elif bool(hit) is not wanted and start is not None:
            runs.append((start, i - start))
            start = None
    return runs


def lines(series, xlabel, ylabel, log=True, floor=1e-9, mark=None, ticks=None, bands=()):
    """Lines over common positions. series: (name, [values], colour, linestyle or "o").

    mark: (x, text), a place to look at. ticks: ([x], [text]). bands: (start, end) to shade. Values below `floor` on a
    logarithmic axis are drawn at it; None, NaN and (on one) 0 leave a gap.
    """

    def draw(figure, narrow):
        axes = figure.add_subplot()
        for start, end in bands:
            axes.axvspan(start, end, color=GRID, alpha=0.45, linewidth=0)
        for name, values, colour, style in series:
            shown = [math.nan if v is None or (log and not v) else max(v, floor) if log else v for v in values]
            marker, line = ("o", "none") if style == "o" else ("o" if len(shown) < 60 else None, style)
            axes.plot(range(len(shown)), shown, color=colour, marker=marker, linestyle=line, label=_plain(name))
        if log:
            axes.set_yscale("log")
        if mark is not None:
            _make_room(axes, log)
            _mark(axes, *mark)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if ticks is not None:
            axes.set_xticks(ticks[0], _thinned(ticks[1], 6 if narrow else 16))
        axes.margins(x=0.02)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=1 if narrow else len(series))

    return draw


def _make_room(axes, log):
    """A third of the height above the curves, for words."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.4 if log else high + 0.4 * (high - low))


def _mark(axes, x, text):
    """A dashed line at x and its text beside it, on the side with room."""
    first, last = axes.dataLim.x0, axes.dataLim.x1
    right = last > first and (x - first) / (last - first) < 0.5
    axes.axvline(x, color=RED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        _plain(text), (x, 1.0), xycoords=("data", "axes fraction"), xytext=(4 if right else -4, -2), fontsize=8.5,
        textcoords="offset points", ha="left" if right else "right", va="top", fontweight="bold", color=RED,
    )  # fmt: skip


def _thinned(texts, most):
    """The texts with all but about `most` of them left empty; the last one stays where it has room."""
    step, last = -(-len(texts) // most), len(texts) - 1
    kept = {*range(0, len(texts), step), *([last] if last % step > step // 2 else [])}
    return [_plain(text) if i in kept else "" for i, text in enumerate(texts)]


def stack(x, layers, xlabel, ylabel, limit=None, spans=()):
    """Areas on top of each other. layers: (name, [values], colour); limit: (value, text); spans: (start, text)."""

    def draw(figure, narrow):
        axes = figure.add_subplot()
        names, values, colours = zip(*layers)
        axes.stackplot(
            x, *values, labels=[_plain(n) for n in names], colors=colours, alpha=0.85, step="post", linewidth=0
        )
        top = max(map(sum, zip(*values)))
        if limit is not None:
            axes.axhline(limit[0], color=RED, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(limit[1], (1, limit[0]), xycoords=("axes fraction", "data"), xytext=(0, 3), ha="right",
                          textcoords="offset points", fontsize=8.5, color=RED)  # fmt: skip
            top = max(top, limit[0])
        axes.set_ylim(0, 1.18 * top or 1)
        for start, text in spans:
            axes.axvline(start, color=INK, linewidth=0.6)
            axes.annotate(_plain(text), (start, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), va="top",
                          textcoords="offset points", fontsize=8.5)  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(x=0)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2 if narrow else len(layers))

    return draw


def scatter(groups, xlabel, ylabel, front=(), log=(False, False)):
    """Points by group, and the line through the best of them. groups: (name, [(x, y, label or "")], colour, marker)."""

    def draw(figure, narrow):
        axes = figure.add_subplot()
        if front:
            axes.plot(*zip(*front), color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for name, points, colour, marker in groups:
            axes.plot(
                [p[0] for p in points], [p[1] for p in points], marker, color=colour, markersize=6, label=_plain(name)
            )
            for x, y, text in points:
                axes.annotate(_plain(text), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
        for scale, use in zip((axes.set_xscale, axes.set_yscale), log):
            if use:
                scale("log")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(0.12)
        axes.grid(axis="x")
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper left", ncols=2 if narrow else min(3, len(groups))
        )

    return draw
