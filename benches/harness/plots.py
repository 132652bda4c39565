"""Draws the plots: `plots.py RESULTS`. Run by the Python of the benchmark's own environment, which has matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
# The same data give the same file.
matplotlib.rcParams.update({"svg.hashsalt": "duragram", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

COLOURS = {
    "floor": "#9aa0a6", "floor-laid-out": "#c5c9ce", "duragram": "#d1495b", "redis": "#30638e", "nats": "#3c7a57",
    "beanstalkd": "#8a6d3b", "nats-default": "#b7d5c4", "valkey": "#6f9dc4", "postgres-insert": "#5c4d7d", "postgres-copy": "#9a86c4",
    "mosquitto": "#d9c39a",
}


def main():
    results = Path(sys.argv[1])
    for name, draw in (("bench", comparison), ("growth", growth), ("soak", soak)):
        path = results / f"{name}.json"
        if path.exists():
            draw(json.loads(path.read_text()), results)


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def from_zero(axis):
    axis.set_ylim(0, axis.get_ylim()[1] * 1.08)


def comparison(found, results):
    cases, kinds, medians = found["cases"], found["systems"], found["medians"]
    figure, axes = plt.subplots(1, 2, figsize=(12, 1.2 + max(0.85, 0.12 * len(kinds)) * len(cases)))
    for axis, key, scale, title in (
        (axes[0], "acked_per_s", 1, "acked datagrams a second"),
        (axes[1], "p50_us", 1e-3, "latency, ms: bar to p50, line to p99"),
    ):
        height = 0.8 / len(kinds)
        for at, (system, kind) in enumerate(kinds.items()):
            rows = [(y, medians[case][system]) for y, case in enumerate(cases) if system in medians.get(case, {})]
            places = [y - 0.4 + (at + 0.5) * height for y, _ in rows]
            values = [row[key] * scale for _, row in rows]
            label = kind["title"] + ("" if kind["durable"] else " (not durable)")
            axis.barh(places, values, height * 0.9, color=COLOURS.get(system, "#555"), label=label)
            if system == "duragram" and key == "acked_per_s":
                for place, value, (y, _) in zip(places, values, rows):
                    told = ratios(found, list(cases)[y])
                    axis.text(value * 0.94, place, told, ha="right", va="center", fontsize=6, color="white")
            if key == "p50_us":
                axis.hlines(places, values, [row["p99_us"] * scale for _, row in rows], color="#333", linewidth=0.8)
        axis.set_xscale("log")
        # Room for the ratios in the shortest bar.
        axis.set_xlim(left=min(row[key] for case in medians.values() for row in case.values()) * scale / 10)
        axis.set_title(title)
        axis.grid(axis="x", alpha=0.3)
        axis.invert_yaxis()
    axes[0].set_yticks(range(len(cases)), list(cases.values()))
    axes[1].set_yticks([])
    axes[0].legend(fontsize=7)
    save(figure, results / "bench.svg")


def ratios(found, case):
    """Duragram's throughput by that of the floor and of the best durable peer in a case."""
    row, kinds = found["medians"][case], found["systems"]
    ours = row["duragram"]["acked_per_s"]
    floors = [row[key]["acked_per_s"] for key in ("floor", "floor-laid-out") if key in row]
    told = [f"{ours / max(floors):.2f} × floor"] if floors else []
    peers = [key for key in row if kinds[key]["durable"] and not key.startswith(("floor", "duragram"))]
    if peers:
        told.append(f"{ours / max(row[key]['acked_per_s'] for key in peers):.1f} × best peer")
    return ", ".join(told)


def growth(found, results):
    for name, series in found["series"].items():
        points = [point for point in series["points"] if point.get("p99_us") is not None]
        if not points:
            continue
        scale = 1e-9 if name == "backlog" else 1
        xs = [point["x"] * scale for point in points]
        figure, rate = plt.subplots(figsize=(7, 3.6))
        late = rate.twinx()
        late.plot(xs, [point["p99_us"] / 1e3 for point in points], "s--", color="#30638e", markersize=4)
        rate.plot(xs, [point["acked_per_s"] for point in points], "o-", color="#d1495b", markersize=4)
        for key, place in (("acked_per_s_min", "_"), ("acked_per_s_max", "_")):
            if all(key in point for point in points):
                rate.plot(xs, [point[key] for point in points], place, color="#d1495b")
        if name.startswith("clients"):
            rate.set_xscale("log")
            rate.set_yscale("log")
            late.set_yscale("log")
        else:
            from_zero(rate)
            from_zero(late)
            rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        rate.set_xlabel(f"{series['title']}{', GB' if name == 'backlog' else ', bytes' if series['unit'] else ''}")
        rate.set_ylabel("acked datagrams a second (circles)", color="#d1495b")
        late.set_ylabel("p99, ms (squares)", color="#30638e")
        rate.grid(alpha=0.3)
        save(figure, results / f"growth-{name}.svg")


def soak(found, results):
    samples = found["samples"]
    if len(samples) < 2:
        return
    at = [sample["at_s"] for sample in samples]
    figure, axes = plt.subplots(3, 1, figsize=(8, 6), sharex=True)
    axes[0].plot(at, [sample["rss_bytes"] / 2**20 for sample in samples], color="#d1495b")
    axes[0].set_ylabel("resident, MiB")
    axes[1].plot(at, [sample["lag_entries"] for sample in samples], color="#30638e")
    axes[1].set_ylabel("entries that lanes lag")
    pairs = list(zip(samples, samples[1:]))
    rates = [(b["journaled"] - a["journaled"]) / (b["at_s"] - a["at_s"]) for a, b in pairs]
    axes[2].plot(at[1:], rates, color="#3c7a57")
    axes[2].set_ylabel("journaled a second")
    axes[2].set_xlabel("seconds")
    for axis in axes:
        from_zero(axis)
        axis.grid(alpha=0.3)
    save(figure, results / "soak.svg")


main()
