"""Numbers as people read them, in pages and notes."""

import math

FILTERS = ("percent", "span", "small", "fixed", "count", "size", "time", "date", "breakable", "pcc")
NONE = "–"


def percent(value, digits=1):
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def span(interval):
    """A 95 % interval of a rate: `91.5 to 99.0 %`."""
    return NONE if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def small(value):
    """Three significant digits over many magnitudes: 0.0123, 4.56e-5."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e4 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def fixed(value, digits=5):
    return NONE if value is None else f"{value:.{digits}f}"


def pcc(value):
    """Six digits, cut and not rounded: what is below 1 does not read as 1."""
    if value is None or math.isnan(value):
        return NONE
    return "1" if value >= 1 else f"{math.floor(1e6 * value) / 1e6:.6f}"


def count(value):
    """1,234; 5.1 G."""
    return NONE if value is None else _scaled(value, {"T": 1e12, "G": 1e9, "M": 1e6}) or f"{value:,.0f}"


def size(n_bytes):
    """Bytes, in units of 1000 as chips are sold: 12.9 GB."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
    return NONE if n_bytes is None else _scaled(n_bytes, units) or f"{n_bytes:.0f} B"


def _scaled(value, units):
    """In the largest unit that it reaches; None where it reaches none."""
    return next((f"{value / scale:.3g} {unit}" for unit, scale in units.items() if abs(value) >= scale), None)


def time(seconds):
    if seconds is None:
        return NONE
    if seconds >= 60:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return "0 s" if seconds == 0 else f"{seconds / 1e-9:.3g} ns"


def date(iso):
    """`2026-03-01T09:30:00+00:00` as `1 March 2026, 09:30 UTC`; what is no date, as it is."""
    from datetime import datetime

    try:
        when = datetime.fromisoformat(iso)
    except (TypeError, ValueError):
        return str(iso)
    zone = when.strftime(" UTC%z").replace("UTC+0000", "UTC") if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def breakable(name):
    """A path or a dotted name for HTML, escaped, that may wrap after its separators."""
    import re

    from markupsafe import Markup, escape

    return Markup(re.sub(r"([/._])", r"\1<wbr>", str(escape(name))))
