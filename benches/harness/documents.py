"""The figures of the comparison in docs/performance.md, made from bench.json: nobody copies them by hand."""

from . import machine, report
from .programs import ROOT
from .report import FLOORS, best_floor, count, ms

PATH = ROOT / "docs/performance.md"
BEGIN = "<!-- From here on made by scripts/bench, from benches/results/bench.json. -->\n"
END = "<!-- Made by scripts/bench up to here. -->\n"


def made(text, found):
    """The document with what was measured."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + "\n".join(comparison(found)) + "\n" + END + after


def comparison(found):
    where = machine.describe(found["machine"])
    yield (
        f"{report.named(found)}, on {where}. Medians of {found['rounds']} rounds of {found['seconds']:.1f} s; 100-byte payloads unless "
        "said otherwise; the servers share the cores with the load program.\n"
    )
    yield (
        "| Duragram | acked/s | p50, ms | p99, ms | acked/s, of the better floor's | p50, of its | acked/s, of the floor's that appends |\n"
        "|---|---|---|---|---|---|---|\n" + "".join(against_floors(found))
    )
    yield "".join(against_peers(found))


def against_floors(found):
    for case, title in found["cases"].items():
        row = found["medians"].get(case, {})
        if "duragram" not in row:
            continue
        ours, floor, appends = row["duragram"], best_floor(row), row.get(FLOORS[0])
        records = f" ({count(ours['records_per_s'])} records/s)" if ours["records_per_s"] > ours["acked_per_s"] else ""
        cells = [
            count(ours["acked_per_s"]) + records, ms(ours["p50_us"]), ms(ours["p99_us"]), times(ours, floor, "acked_per_s"),
            times(ours, floor, "p50_us"), times(ours, appends, "acked_per_s"),
        ]
        yield f"| {title} | {' | '.join(cells)} |\n"


def times(ours, theirs, figure):
    return f"{ours[figure] / theirs[figure]:.2f} ×" if theirs else ""


def against_peers(found):
    medians, kinds = found["medians"], found["systems"]
    systems = [key for key in kinds if key not in FLOORS]
    peers = [key for key in systems if key != "duragram"]
    cases = {case: title for case, title in found["cases"].items() if any(peer in medians.get(case, {}) for peer in peers)}
    yield f"| acked/s; p50 | {' | '.join(cases.values())} |\n|---{'|---' * len(cases)}|\n"
    # Those that promise less stand below.
    for key in sorted(systems, key=lambda key: not kinds[key]["durable"]):
        cells = [cell(medians.get(case, {}).get(key)) for case in cases]
        yield f"| {report.versioned(kinds[key])}{'' if kinds[key]['durable'] else ', **not durable**'} | {' | '.join(cells)} |\n"


def cell(figures):
    return f"{count(figures['acked_per_s'])}; {ms(figures['p50_us'])} ms" if figures else ""
