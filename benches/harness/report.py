"""bench.md: tables from whatever JSON is there."""

import json
import statistics

from . import machine, model

# Processor time beyond that of server and load, in cores, above which figures are not worth much.
OTHERS_MAX = 0.4
FLOORS = ("floor", "floor-laid-out")
GOALS_HEAD = "| figure | goal | reached | |\n|---|---|---|---|\n"


def read(results):
    """All JSON of the results' directory, by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}


def made(found):
    """The text of bench.md."""
    parts = [
        "# Measured\n\nWritten by `scripts/bench`; how to read it: [README.md](README.md). "
        "Every ack of a durable system comes after its sync.\n"
    ]
    if "bench" in found:
        parts += comparison(found["bench"])
    rows = goals(found)
    if rows:
        parts.append("## Goals\n\n" + GOALS_HEAD + "".join(rows))
    for key, part in (("growth", growth), ("soak", soak), ("sessions", sessions), ("recovery", recovery),
                      ("idle", idle), ("overload", overload), ("sealed", sealed), ("burst", burst), ("sinks", sinks),
                      ("answers", answers), ("capacity", capacity),
                      ("redis-benchmark", redis)):
        if key in found:
            parts.append(part(found[key]))
    return "\n".join(parts)


def head(found):
    where = machine.describe(found["machine"])
    return f"{named(found)}, {found['minutes']} minutes, on {where}.\n"


def named(found):
    """What was run, when, and of which commit."""
    commit = f", commit {found['commit']}" if found.get("commit") else ""
    return f"`{found['command']}`, {found['date']}{commit}"


def versioned(kind):
    """A system's title, and its version where it has one."""
    return " ".join(filter(None, (kind["title"], kind.get("version"))))


def comparison(found):
    medians, kinds = found["medians"], found["systems"]
    keys = list(kinds)
    peers = [key for key in keys if kinds[key]["durable"] and not key.startswith(("floor", "duragram"))]
    yield "## Against the floor and the peers\n"
    yield head(found)
    yield (
        f"Medians of {found['rounds']} rounds, {found['seconds']:.1f} s each after {found['warm_seconds']:.0f} s of "
        "warm-up. 100-byte payloads unless said otherwise.\n"
    )
    # Kernel threads that write and receive for the servers are among the others.
    others = [run["other_cores"] for run in found["runs"] if "other_cores" in run]
    if others and statistics.median(others) > OTHERS_MAX:
        yield f"**The machine was busy with other work ({statistics.median(others):.1f} cores): no fair figures.**\n"
    yield "".join(f"- {versioned(kinds[key])}: {kinds[key]['note']}\n" for key in keys)
    if found["missing"]:
        yield "".join(f"- {key} is missing here: {why}\n" for key, why in found["missing"].items())
    titles = " | ".join(kinds[key]["title"] for key in keys)
    ratios = " | Duragram / better floor | Duragram / best durable peer"
    lines = [f"### Acked datagrams a second\n\n| case | {titles}{ratios} |", "|---" * (len(keys) + 3) + "|"]
    for case, title in found["cases"].items():
        row = medians.get(case, {})
        cells = [count(row[key]["acked_per_s"]) if key in row else "" for key in keys]
        lines.append(f"| {title} | {' | '.join(cells)} | {ratio(row)} | {peer_ratio(medians, case, peers)} |")
    yield "\n".join(lines) + "\n"
    lines = [f"### Latency: p50 / p99 in ms\n\n| case | {titles} |", "|---" * (len(keys) + 1) + "|"]
    for case, title in found["cases"].items():
        row = medians.get(case, {})
        cells = [f"{ms(row[key]['p50_us'])} / {ms(row[key]['p99_us'])}" if key in row else "" for key in keys]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    yield "\n".join(lines) + "\n"
    for case, row in medians.items():
        # The floor takes what the kernel dropped for received: its rate is then too high.
        for key in FLOORS:
            if not row.get(key, {}).get("kernel_drops"):
                continue
            yield f"- {key}, {found['cases'][case]}: it acked what the kernel had dropped; its figure is too high\n"
    failed = [run for run in found["runs"] if "failed" in run]
    if failed:
        yield "".join(f"- {r['system']} failed in {r['case']}, round {r['round']}: {r['failed']}\n" for r in failed)
    if medians:
        yield "![Acked a second and latency](bench.svg)\n"


def best_peer(medians, peers):
    """The most that any durable peer acked in any case, and which."""
    rates = [(row[key]["acked_per_s"], key) for row in medians.values() for key in peers if key in row]
    return max(rates, default=(None, None))


def peer_ratio(medians, case, peers):
    row = medians.get(case, {})
    here = [row[key]["acked_per_s"] for key in peers if key in row]
    most = best_peer(medians, peers)[0] if case == "bulk" else max(here, default=None)
    return f"{row['duragram']['acked_per_s'] / most:.1f} ×" if most and "duragram" in row else ""


def best_floor(row):
    """The better of the two floors: which it is depends on the file system. None without any."""
    return max((row[key] for key in FLOORS if key in row), key=lambda floor: floor["acked_per_s"], default=None)


def ratio(row):
    floor = best_floor(row)
    if "duragram" not in row or not floor:
        return ""
    return f"{row['duragram']['acked_per_s'] / floor['acked_per_s']:.2f} ×"


def goals(found):
    """The figures that issue 3 asks for, as far as they were measured."""
    rows = []

    def goal(what, wanted, reached, good):
        rows.append(f"| {what} | {wanted} | {reached} | {'yes' if good else '**no**'} |\n")

    medians = found.get("bench", {}).get("medians", {})

    def shares(row, figure):
        """Of the floor as the goals have it, which appends, and of the one in a laid-out file, which they do not ask for."""
        each = [row["duragram"][figure] / row[key][figure] for key in FLOORS if key in row]
        return each[0], " × and ".join(f"{share:.2f}" for share in each) + " ×"

    def measured(case):
        row = medians.get(case, {})
        return row if "duragram" in row and FLOORS[0] in row else None

    row = measured("1x1")
    if row:
        ours = row["duragram"]
        share, said = shares(row, "p50_us")
        goal("1 client, window 1: p50", "≤ 1.1 × the floor", f"{ours['p50_us']:.0f} µs, {said}", share <= 1.1)
        for key in ("redis", "nats", "beanstalkd"):
            if key in row:
                theirs = row[key]["p50_us"]
                goal(f"the same against {key}", "below", f"{ours['p50_us']:.0f} against {theirs:.0f} µs",
                     ours["p50_us"] < theirs)
    for case, wanted in (("8x64", 0.8), ("512x1", 0.8), ("bulk1200", 0.5)):
        row = measured(case)
        if row:
            share, said = shares(row, "acked_per_s")
            title = found["bench"]["cases"][case].replace("the same", "16 × 1,024, GSO 64")
            goal(f"{title}: acked/s", f"≥ {wanted} × the floor",
                 f"{count(row['duragram']['acked_per_s'])}, {said}", share >= wanted)
    ours = medians.get("bulk", {}).get("duragram")
    if ours:
        goal("16 × 1,024, GSO 64: acked/s", "≥ 4 million", count(ours["acked_per_s"]), ours["acked_per_s"] >= 4e6)
        goal("the same: p99", "≤ 10 ms", f"{ms(ours['p99_us'])} ms", ours["p99_us"] <= 10_000)
        for key, times in (("redis", 8), ("nats", 500)):
            most = best_peer(medians, [key])[0]
            if most:
                share = ours["acked_per_s"] / most
                goal(f"the same against the best of {key}", f"≥ {times} ×", f"{share:.1f} ×", share >= times)
        if ours.get("disk_bytes") and ours.get("journal_bytes"):
            share = ours["disk_bytes"] / ours["journal_bytes"]
            goal("bytes written to disk per byte journaled", "≤ 1.15", f"{share:.2f}", share <= 1.15)
    for case, wanted in (("batch11", 5e6), ("batch20x50", 8e6)):
        ours = medians.get(case, {}).get("duragram")
        if ours:
            title = found["bench"]["cases"][case].replace("the same", "bulk")
            goal(f"{title}: records/s", f"≥ {wanted / 1e6:.0f} million", count(ours["records_per_s"]),
                 ours["records_per_s"] >= wanted)
    ours = medians.get("open100k", {}).get("duragram")
    if ours:
        goal("open loop at 100,000/s: p50", "≤ 0.5 ms", f"{ms(ours['p50_us'])} ms", ours["p50_us"] <= 500)
        goal("the same: p99", "≤ 2 ms", f"{ms(ours['p99_us'])} ms", ours["p99_us"] <= 2_000)
    if "soak" in found:
        figures = found["soak"]["figures"]
        late, longest = figures["p999_us"], figures["max_us"]
        goal("soak at 70 % of the maximum: p99.9", "≤ 20 ms", f"{ms(late)} ms", late <= 20_000)
        goal("the same: longest stall", "≤ 100 ms", f"{ms(longest)} ms", longest <= 100_000)
        early, late = soak_memory(found["soak"])
        flat = late <= early * 1.05 + (16 << 20)
        goal("the same: resident memory", "flat", f"{mib(early)} → {mib(late)} MiB", flat)
    if "sessions" in found:
        middle = found["sessions"]["medians"]
        goal("1 million sessions: memory of each", "≤ 200 bytes", f"{middle['bytes_per_session']:.0f}",
             middle["bytes_per_session"] <= 200)
        goal("the same: throughput", "≥ 0.8 × that of 100", f"{middle['ratio']:.2f} ×", middle["ratio"] >= 0.8)
    if "recovery" in found:
        it = found["recovery"]
        per_s = it["entries_scanned_per_s"]
        goal("recovery: entries scanned a second", "≥ 5 million", count(per_s), per_s >= 5e6)
        goal("start with 10 million unprocessed", "< 5 s", f"{it['serve_start_s']:.2f} s", it["serve_start_s"] < 5)
    if "idle" in found:
        it = found["idle"]["fresh"]
        goal("idle server: processor", "< 0.5 % of a core", f"{it['cpu_share']:.2%}", it["cpu_share"] < 0.005)
        goal("idle server: memory", "< 64 MiB", f"{mib(it['rss_bytes'])} MiB", it["rss_bytes"] < 64 << 20)
        rss = found["idle"]["after_load"]["rss_bytes"]
        goal("the same after a bulk load", "≤ 64 MiB", f"{mib(rss)} MiB", rss <= 64 << 20)
    return rows


def growth(found):
    text = "## What growth costs\n\n" + head(found)
    for name, series in found["series"].items():
        text += f"\n### {series['title'].capitalize()}\n\n| {series['unit'] or 'number'} | acked/s | MB/s of payload "
        text += "| p50 ms | p99 ms |\n|---|---|---|---|---|\n"
        for point in series["points"]:
            value = f"{point['x'] / 1e9:.1f} GB" if name == "backlog" else count(point["x"])
            text += (f"| {value} | {count(point['acked_per_s'])} | {point['bytes_per_s'] / 1e6:.0f} | "
                     f"{ms(point['p50_us'])} | {ms(point['p99_us'])} |\n")
        text += f"\n![{series['title']}](growth-{name}.svg)\n"
    return text


def soak_memory(found):
    """The median of resident memory in the second tenth, and in the last."""
    rss = [sample["rss_bytes"] for sample in found["samples"]]
    tenth = max(len(rss) // 10, 1)
    return statistics.median(rss[tenth : 2 * tenth] or rss), statistics.median(rss[-tenth:])


def soak(found):
    figures = found["figures"]
    early, late = soak_memory(found)
    lag = max((sample["lag_entries"] for sample in found["samples"]), default=0)
    return (
        f"## Soak\n\n{head(found)}\n"
        f"{count(found['rate'])} datagrams a second ({found['share']:.0%} of {count(found['maximum_per_s'])}) for "
        f"{figures['seconds']:.0f} s, {count(figures['acked'])} acked: p50 {ms(figures['p50_us'])} ms, "
        f"p99 {ms(figures['p99_us'])} ms, p99.9 {ms(figures['p999_us'])} ms, longest {ms(figures['max_us'])} ms. "
        f"Resident memory {mib(early)} MiB in the second tenth, {mib(late)} MiB in the last; lanes were at most "
        f"{count(lag)} entries behind at a sample.\n\n![Soak](soak.svg)\n"
    )


def sessions(found):
    it = found["medians"]
    return (
        f"## Sessions\n\n{head(found)}\nOne datagram a call, in an open loop; what the server takes of it: "
        f"{count(it['few_per_s'])}/s over {found['few']} sessions, {count(it['many_per_s'])}/s over "
        f"{count(found['sessions'])} ({it['ratio']:.2f} ×). "
        f"A session takes {it['bytes_per_session']:.0f} bytes of resident memory.\n"
    )


def sealed(found):
    rows = "".join(
        f"| {name} | {count(of['plain']['acked_per_s'])} | {count(of['sealed']['acked_per_s'])} "
        f"| {of['sealed']['acked_per_s'] / of['plain']['acked_per_s']:.2f} × "
        f"| {ms(of['plain']['p50_us'])} / {ms(of['plain']['p99_us'])} | {ms(of['sealed']['p50_us'])} / {ms(of['sealed']['p99_us'])} |\n"
        for name, of in found["medians"].items()
    )
    return (
        f"## Sealed mode\n\n{head(found)}\nMedians of {found['rounds']} rounds, {found['seconds']:.0f} s each; the load program seals "
        "on the same cores.\n\n| load | plain, acked/s | sealed, acked/s | ratio | plain, p50 / p99 in ms | sealed |\n"
        f"|---|---|---|---|---|---|\n{rows}"
    )


def recovery(found):
    return (
        f"## Recovery\n\n{head(found)}\nKilled with {count(found['entries'])} unprocessed entries "
        f"({found['backlog_bytes'] / 1e9:.2f} GB): `duragram serve` is ready after {found['serve_start_s']:.2f} s "
        f"({count(found['entries_scanned_per_s'])} entries a second), and has processed all of them "
        f"{found['drain_s']:.2f} s later ({count(found['entries_drained_per_s'])} a second). The page cache was warm.\n"
    )


def idle(found):
    text = f"## Idle\n\n{head(found)}\n"
    for key, title in (("fresh", "just started"), ("after_load", "after a bulk load")):
        it = found[key]
        text += f"- {title}: {it['cpu_share']:.2%} of a core, {mib(it['rss_bytes'])} MiB resident\n"
    return text


def overload(found):
    text = f"## Overload\n\n{head(found)}\nThe maximum is what the same load gets acked at the same server for half a minute before and "
    text += "half a minute after; beside a control, while the rude clients send to a port where nobody reads. Rude clients send "
    text += f"{count(found['rude_rate'])} datagrams a second: new sessions, beyond their credit, huge gaps, bad checksums.\n\n"
    text += "| | acked/s of those that behave | maximum/s, before and after | of the maximum | longest wait, ms | memory, MiB | documented sum, MiB "
    text += "| one client, p99 before and right after, ms |\n|---|---|---|---|---|---|---|---|\n"
    for name, run in found["runs"].items():
        longest = "" if run["open_loop"] else ms(run["max_us"])
        both = "; ".join(f"{kind} {count(first)}, {count(last)}" for kind, (first, last) in run["reference_per_s"].items())
        goodput = "; ".join(f"{kind} {share:.2f}" for kind, share in run["goodput"].items())
        text += f"| {name}, {found['seconds']:.0f} s | {count(run['acked_per_s'])} | {both} | {goodput} | {longest} | {mib(run['rss_bytes_max'])} "
        text += f"| {mib(run['bound_bytes'])} | {ms(run['before']['p99_us'])}, {ms(run['after']['p99_us'])} |\n"
    return text


def answers(found):
    rows = "".join(
        f"| {name} | {of['p50_us']:,.0f} | {number(of, 'answer_p50_us')} | {number(of, 'answer_p99_us')} "
        f"| {of['acked_per_s']:,.0f} | {number(of, 'answered_per_s')} | {of['server_rss_bytes'] / (1 << 20):,.0f} |\n"
        for name, of in found["medians"].items()
    )
    shares = found["shares"]
    return (
        f"## Answers\n\n{head(found)}\nOne message at a time, and 64 of each of 512 clients; 100 bytes, which are the answer too. `exec` is a child "
        "in Python, `embedded` a handler in Rust.\n\n"
        "| | ack p50 (us) | answer p50 (us) | answer p99 (us) | acked a second | answered a second | MiB |\n"
        f"|---|---|---|---|---|---|---|\n{rows}\n"
        f"The ack of an ask takes {shares['ack_p50_asked_to_plain']} of a plain one, the answer of `exec` "
        f"{shares['answer_p50_to_ack_p50']} of its ack.\n"
    )


def number(of, key):
    return f"{of[key]:,.0f}" if key in of else ""


def burst(found):
    clients = list(found["clients"])
    text = f"## Burst losses\n\n{head(found)}\n{count(found['lines'])} lines of {found['line_bytes']} bytes, window {count(found['window'])}, "
    text += f"through a path that loses a share of some first transmissions in a row, from number {count(found['after'])} on (answers: of the answers "
    text += f"that come meanwhile; all: of all datagrams in a row, those that make losses good among them): seconds until the client ends, with its start; medians of {found['rounds']}.\n\n"
    text += f"| lost | {' | '.join(clients)} |\n|---{'|---' * len(clients)}|\n"
    for row in zip(*found["clients"].values()):
        case = row[0]
        kind = {"first": "datagrams"}.get(case["what"], case["what"])
        what = f"{case['share']} % of {count(case['length'])} {kind}" if case["share"] else "nothing"
        cells = " | ".join("not done" if each["median_s"] is None else f"{each['median_s']:.2f}" for each in row)
        text += f"| {what} | {cells} |\n"
    return text


def sinks(found):
    text = f"## Sinks\n\n{head(found)}\nRecords of {found['bytes']} bytes in calls of {count(found['batch'])}, worked off from a backlog while nothing else is to be done; "
    text += f"medians of {found['rounds']}.\n\n| sink | records/s | its target's own tool | records/s | |\n|---|---|---|---|---|\n"
    for name, row in found["sinks"].items():
        tool = f"{row['tool']} | {count(row['tool_per_s'])} | {row['share']:.2f} ×" if "share" in row else "| |"
        text += f"| {name} | {count(row['sink_per_s'])} | {tool} |\n"
    for load, row in found["ingestion"].items():
        text += f"\nIngestion, {load}, beside a sink that is away and one that takes nothing: {count(row['beside'])}/s acked, {row['share']:.2f} of "
        text += f"the {count(row['alone'])}/s with `null` alone.\n"
    return text


def capacity(found):
    """What performance.md has of it, too."""
    rows = list(model.compared(found))
    title = {key: case["title"] for key, case in found["cases"].items()}
    text = f"## Capacity\n\n{head(found)}\nMedians of {found['rounds']} rounds of {found['seconds']:.1f} s. The disk as it is, and with each sync made "
    text += "longer by the fault layer; measured by a process under the same layer.\n\n"
    text += f"{found['note']}\n\n" if "note" in found else ""
    text += "| a sync is longer by | mean of a sync of 4 KiB | 256 KiB at a time, each synced | so a MiB takes, beside the sync |\n|---|---|---|---|\n"
    for delay in found["delays_ms"]:
        traits = disk_of(found, delay)
        disk = model.Disk.of(traits)
        text += f"| {delay} ms | {disk.sync:,.0f} µs | {traits['synced_write_mb_per_s']:,.0f} MB/s | {disk.byte * (1 << 20):,.0f} µs |\n"
    text += "\nWhat a datagram costs, in ns of one core, on the disk as it is:\n\n"
    text += "| load | ingest | write | sync | lane | the rest | load program | bytes in the journal |\n|---|---|---|---|---|---|---|---|\n"
    for case, delay, costs, _, measured in rows:
        if delay == found["delays_ms"][0]:
            # Without the syncs that it makes itself, which count as the disk's.
            cells = [costs.ingest * 1e3, *(measured[f"{stage}_ns"] for stage in model.STAGES[1:]), costs.bytes]
            text += f"| {title[case]} | {' | '.join(f'{cell:,.0f}' for cell in cells)} |\n"
    text += "\nExpected, measured, and the one by the other:\n\n"
    text += "| load | a sync is longer by | acked/s, expected | measured | | p50 in ms, expected | measured | | bound by | datagrams a commit, expected | measured |\n"
    text += "|---|---|---|---|---|---|---|---|---|---|---|\n"
    for case, delay, _, it, measured in rows:
        per_s, p50 = measured["acked_per_s"], measured["p50_us"]
        text += f"| {title[case]} | {delay} ms | {count(it.per_s)} | {count(per_s)} | {it.per_s / per_s:.2f} | {ms(it.p50)} | {ms(p50)} | {it.p50 / p50:.2f} "
        text += f"| {it.bound} | {it.datagrams:,.0f} | {measured['acked'] / measured['commits']:,.0f} |\n"
    text += "\nA stage on a core of its own, clients elsewhere, and enough in flight: what each takes by the costs above, in datagrams a second (a model, not a "
    text += "measurement). The disk's is for commits of `commit_bytes_max`.\n\n"
    delays = found["delays_ms"]
    text += f"| load | ingest | write | {' | '.join(f'disk, a sync longer by {delay} ms' for delay in delays)} | cores busy at the least of ingest, write and disk |\n"
    text += f"|---|---|---|{'---|' * (len(delays) + 1)}\n"
    for case in title:
        mine = [row for row in rows if row[0] == case]
        costs = mine[0][2]
        if not mine[0][3].large or "rate" in found["cases"][case]["load"]:
            continue
        disks = [model.full_commits(costs, model.Disk.of(disk_of(found, delay))) for delay in delays]
        stages = [1e6 / costs.ingest, 1e6 / costs.write]
        busy = min(*stages, disks[0]) * (costs.all - costs.load) / 1e6
        text += f"| {title[case]} | {' | '.join(count(per_s) for per_s in stages + disks)} | {busy:.1f} |\n"
    return text


def disk_of(found, delay):
    return model.median([disk for disk in found["disks"] if disk["delay_ms"] == delay])


def redis(found):
    text = f"## The load client beside redis-benchmark\n\n{head(found)}\n"
    text += "The same `XADD` of 100 bytes, in turn, medians.\n\n"
    text += "| connections × in flight | peer_load/s | redis-benchmark/s | |\n|---|---|---|---|\n"
    for pair in found["pairs"]:
        ours, theirs, shape = pair["peer_load"], pair["redis_benchmark"], pair["shape"]
        text += f"| {shape['clients']} × {shape['window']} | {count(ours)} | {count(theirs)} "
        text += f"| {ours / theirs:.2f} × |\n"
    return text


def count(value):
    if value >= 1e6 and value != 1_000_000:
        return f"{value / 1e6:.2f} million"
    return f"{value:,.0f}"


def ms(us):
    value = us / 1000
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def mib(value):
    return f"{value / 2**20:.0f}"
