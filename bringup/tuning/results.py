"""Results of a sweep: which points nothing beats, as a table and as a picture."""

from bringup.console import screen
from bringup.files import written_whole
from bringup.report import plots

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE, plots.SKY)  # of fidelities


def mark_pareto(rows):
    """`pareto`: no other point is both at least as fast and at least as close to the reference, and better in one."""
    done = [row for row in rows if "refused" not in row]
    for row in rows:
        row["pareto"] = "refused" not in row and not any(_beats(other, row) for other in done)


def _beats(a, b):
    (fast_a, kl_a), (fast_b, kl_b) = coordinates(a), coordinates(b)
    return fast_a >= fast_b and kl_a <= kl_b and (fast_a > fast_b or kl_a < kl_b)


def coordinates(row):
    """(predicted tokens per second and user, mean KL divergence)"""
    return row["predicted"]["tokens_per_second_per_user"], row["accuracy"]["kl_mean"]


def show(rows, axes):
    from rich.table import Table

    table = Table(title="* nothing is both faster (predicted) and closer", title_justify="left")
    names = (*axes, "weights/chip", "predicted t/s/u", "TTFT ms", "mean KL", "rel. L2", "top-1", "top-5", "")
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i >= len(axes) else "left")
    done = sorted((r for r in rows if "refused" not in r), key=lambda r: r["accuracy"]["kl_mean"])
    for row in done:
        p, a = row["predicted"], row["accuracy"]
        table.add_row(
            *(row[axis] for axis in axes),
            f"{row['weights_bytes'] / 1e9:.2f} GB",
            f"{p['tokens_per_second_per_user']:.1f}",
            f"{1e3 * p['ttft_seconds']:.0f}",
            f"{a['kl_mean']:.2e}",
            f"{a['rel_l2']:.4f}",
            f"{100 * a['top1']:.1f} %",
            f"{100 * a['top5']:.1f} %",
            "*" if row["pareto"] else "",
        )
    console = screen(140)
    console.print(table)
    for text in dict.fromkeys(text for row in done for text in row.get("warnings", ())):
        of = ["-".join(row[axis] for axis in axes) for row in done if text in row.get("warnings", ())]
        print(f"warning from the library, {', '.join(of)}: {text}")
    for row in rows:
        if "refused" in row:
            lines = row["refused"].splitlines()
            why = " ".join(line.strip() for line in lines[:2])
            console.print(f"refused: {' '.join(row[axis] for axis in axes)}: {why}", soft_wrap=True)


def draw(rows, out, title):
    """The Pareto picture as SVG and PNG; nothing where no point has a result."""
    done = [row for row in rows if "refused" not in row]
    if not done:
        return []
    from matplotlib.figure import Figure

    groups = []
    for marker, destination in (("o", "fp32"), ("s", "bf16"), ("^", "-")):
        for colour, fidelity in zip(COLOURS, sorted({row["fidelity"] for row in done})):
            some = [r for r in done if (r["destination"], r["fidelity"]) == (destination, fidelity)]
            points = [(*coordinates(r), f"{r['attention']}/{r['mlp']}/{r['head']}" * r["pareto"]) for r in some]
            if points:
                groups.append((f"{fidelity}, {destination} destination", points, colour, marker))
    front = sorted(coordinates(row) for row in done if row["pareto"])
    speed = "predicted tokens per second and user, traced, token chosen on the device"
    figure = Figure(figsize=(8, 5), layout="constrained")
    plots.scatter(groups, speed, "mean KL divergence from HF (emulated)", front, log=(False, True))(
        figure, narrow=False
    )
    figure.axes[0].set_title(f"{title}: weights of attention/MLP/head")
    figure.axes[0].grid(color="0.9")
    pictures = [out / "sweep.svg", out / "sweep.png"]
    for path in pictures:
        with written_whole(path) as partial:
            figure.savefig(partial, dpi=150, format=path.suffix[1:])
    return pictures
