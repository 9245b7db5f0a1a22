# SPDX-License-Identifier: Apache-2.0
"""Tables and the figure of what compare_study.py measured. A ratio is the median of the rounds' own ratios, where both sides
were measured in the same rounds."""
import re
import statistics

from compare_pairs import ANY_PEER, BUILDS, PAIRS, Pair
from compare_study import RECALLS, front
from compare_report import at_recall, machine_line, markdown, number

GRAPH_PEER = r"symqg|glass|hnswlib|faiss-hnsw|svs|usearch"
GRAPH_SPEEDUP = 1.9  # of a build on two threads
TAIL_MOST = 3        # a single query's p99 by its p50
DISTURBED = 0.1      # processors that others had during a build: from here on its seconds are not to be quoted


def turns_of(record):
    return sorted({one["round"] for point in record["points"] for one in point["rounds"]})


def rate(record, threads, turn, wanted):
    """QPS at a recall in one round; None where it is not reached or not measured."""
    pairs = [(point["recall"], one[str(threads)]) for point in record["points"] for one in point["rounds"] if one["round"] == turn]
    return at_recall(pairs, wanted)


def rate_median(record, threads, wanted):
    rates = [rate(record, threads, turn, wanted) for turn in turns_of(record)]
    rates = [one for one in rates if one]
    return statistics.median(rates) if rates else None


def single(record, wanted, which):
    """Median over the rounds of the p50 or p99 at the setting that just reaches a recall, in microseconds."""
    for point in record["points"]:
        if wanted in point.get("single_of", []):
            times = [one[which] for one in point["rounds"] if which in one]
            return 1e6 * statistics.median(times) if times else None
    return None


def ratio(own, peers, threads, wanted):
    """Of the rounds' own ratios, the best of each side: least, median, most; None where one side has none."""
    ratios = []
    for turn in sorted({turn for record in peers for turn in turns_of(record)}):
        mine, theirs = ([found for found in (rate(record, threads, turn, wanted) for record in side) if found] for side in (own, peers))
        if mine and theirs:
            ratios.append(max(mine) / max(theirs))
    return (min(ratios), statistics.median(ratios), max(ratios)) if ratios else None


def ratio_single(own, peers, wanted):
    mine, theirs = ([found for found in (single(record, wanted, "p50") for record in side) if found] for side in (own, peers))
    return 3 * (min(theirs) / min(mine),) if mine and theirs else None


def goal_text(text, value, least):
    return text if least is None else f"{text}, goal {least:g}" + ("" if value >= least else " **not reached**")


def ratio_text(found, least):
    return "-" if found is None else goal_text(f"{found[1]:.2f} ({found[0]:.2f}..{found[2]:.2f})", found[1], least)


def matching(results, pattern):
    return [record for name, record in results["engines"].items() if re.match(pattern, name) and record["points"]]


def table_engines(results):
    rows = []
    order = sorted(results["engines"].items(), key=lambda item: -(rate_median(item[1], results["threads"][0], 0.95) or 0))
    for name, record in order:
        if not record["points"]:
            continue
        about = record["about"]
        cells = [label(name, record), build_text(about), f"{about['memory_bytes'] / about['rows']:.0f}"]
        for threads in results["threads"]:
            cells += [number(rate_median(record, threads, wanted) or float("nan"), 0) for wanted in RECALLS]
        cells += [" / ".join(number(single(record, wanted, "p50"), 0) for wanted in RECALLS), number(single(record, 0.95, "p99"), 0)]
        rows.append(cells + [f"{max(point['recall'] for point in record['points']):.4f}"])
    head = ["engine", "build s (train + add)", "bytes a vector"]
    for threads in results["threads"]:
        head += [f"QPS at {wanted:.2f}, {threads} thr" for wanted in RECALLS]
    return markdown(head + ["one query, p50 us at .90 / .95 / .99", "p99 us at .95", "most recall"], rows)


def seconds_text(about, seconds):
    """In brackets where others had the processors meanwhile."""
    text = number(seconds)
    return f"({text})" if is_disturbed(about) else text


def is_disturbed(about):
    return (about.get("disturbance") or 0) > DISTURBED


def build_text(about):
    text = seconds_text(about, about["build_seconds"])
    if "train_seconds" in about:
        text += f" ({about['train_seconds']:.1f} + {about['add_seconds']:.1f})"
    return text


def pairs_of(kind, results):
    """The pairs of a kind of study; for graphs also each of kith's specs by the best peer."""
    pairs = list(PAIRS[kind])
    if kind == "graph":
        own = [name for name in results["engines"] if name.startswith("kith=")]
        pairs += [Pair("", f"{label(name, results['engines'][name])} by the best peer", re.escape(name) + "$", ANY_PEER) for name in own]
    return pairs


def table_ratios(kind, results):
    rows = []
    for pair in pairs_of(kind, results):
        own, peers = matching(results, pair.own), matching(results, pair.peers)
        if not own or not peers or pair.settings:
            continue
        for threads in results["threads"]:
            rows.append([pair.title, f"{threads} thr"] +
                        [ratio_text(ratio(own, peers, threads, wanted), bound) for wanted, bound in zip(RECALLS, pair.least)])
        rows.append([pair.title, "one query, p50"] + [ratio_text(ratio_single(own, peers, wanted), pair.least_single) for wanted in RECALLS])
    return markdown(["kith's rate by the peer's, median of the rounds (least..most)", ""] + [f"at {wanted:.2f}" for wanted in RECALLS], rows)


def ratio_at(own, peer, threads, setting):
    """Of the rounds' own ratios at one setting: least, median, most; and the recall of both. None where one was not measured."""
    points = [next((point for point in record["points"] if point["parameters"] == setting), None) for record in (own, peer)]
    if None in points:
        return None, None
    mine, theirs = ({one["round"]: one[str(threads)] for one in point["rounds"]} for point in points)
    ratios = [mine[turn] / theirs[turn] for turn in sorted(mine) if turn in theirs]
    recalls = tuple(point["recall"] for point in points)
    return ((min(ratios), statistics.median(ratios), max(ratios)) if ratios else None), recalls


def recall_text(recalls, slack):
    if recalls is None:
        return "-"
    text = f"{recalls[0]:.4f} / {recalls[1]:.4f}"
    return text if slack is None else f"{text}, goal -{slack:g}" + ("" if recalls[0] >= recalls[1] - slack else " **not reached**")


def table_settings(kind, results):
    """Pairs that are compared at the same settings."""
    tables = []
    for pair in PAIRS[kind]:
        own, peers = matching(results, pair.own), matching(results, pair.peers)
        if not own or not peers or not pair.settings:
            continue
        rows = []
        for threads in results["threads"]:
            found = [ratio_at(own[0], peers[0], threads, setting)[0] for setting in pair.settings]
            rows.append([pair.title, f"rate, {threads} thr"] + [ratio_text(one, bound) for one, bound in zip(found, pair.least)])
        recalls = [ratio_at(own[0], peers[0], results["threads"][0], setting)[1] for setting in pair.settings]
        rows.append([pair.title, "recall, kith / the peer"] + [recall_text(one, pair.recall_slack) for one in recalls])
        tables.append(markdown(["at the same settings, median of the rounds (least..most)", ""] + list(pair.settings), rows))
    return tables


def table_latency(results):
    """Queries one at a time, each engine at the setting that just reaches a recall."""
    rows = []
    for name, record in results["engines"].items():
        cells = []
        for wanted in RECALLS:
            middle, tail = single(record, wanted, "p50"), single(record, wanted, "p99")
            if middle is None:
                cells += ["-", "-"]
                continue
            cells.append(f"{number(middle)} / {number(tail)}")
            cells.append(f"{tail / middle:.1f}" + (f" **over {TAIL_MOST}**" if name.startswith("kith=") and round(tail / middle, 1) > TAIL_MOST else ""))
        if any(cell != "-" for cell in cells):
            rows.append([label(name, record)] + cells)
    return markdown(["one query, us, p50 / p99"] + [head for wanted in RECALLS for head in (f"at {wanted:.2f}", "p99 by p50")], rows)


def table_builds(results):
    rows = []
    for pattern, peer_name, least in BUILDS:
        own, peer = matching(results, pattern), results["engines"].get(peer_name)
        if not own or not peer:
            continue
        for record in own:
            about = record["about"]
            found = peer["about"]["build_seconds"] / about["build_seconds"]
            rows.append([about["version"], peer_name, seconds_text(about, about["build_seconds"]),
                         seconds_text(peer["about"], peer["about"]["build_seconds"]), goal_text(f"{found:.2f}", found, least)])
    return markdown(["kith", "peer", "kith builds in s", "the peer in s", "the peer's by kith's"], rows)


def table_graph_builds(results):
    """Build time and memory of kith's graphs: by their own on one thread, and by the graph peer that reaches .99 and is built
    soonest, of those whose build was not disturbed."""
    peers = [(name, results["engines"][name]) for name in results["engines"] if re.match(GRAPH_PEER, name)]
    good = [(record["about"]["build_seconds"], name) for name, record in peers
            if not is_disturbed(record["about"]) and max((point["recall"] for point in record["points"]), default=0) >= RECALLS[-1]]
    glass = results["engines"].get("glass-sq8")
    rows = []
    for name, record in results["engines"].items():
        if not name.startswith("kith="):
            continue
        about = record["about"]
        seconds, slower = about["build_seconds"], about.get("build_seconds_on", {}).get("1")
        cells = [seconds_text(about, slower) if slower else "-"]
        quiet = not is_disturbed(about)
        cells.append(goal_text(f"{slower / seconds:.2f}", slower / seconds, GRAPH_SPEEDUP) if slower and quiet else "-")
        cells.append(f"{min(good)[1]}, {number(min(good)[0])}" if good else "-")
        cells.append(goal_text(f"{min(good)[0] / seconds:.2f}", min(good)[0] / seconds, 1) if good and quiet else "-")
        own = about["memory_bytes"] / about["rows"]
        cells += [number(own, 0), f"{own * glass['about']['rows'] / glass['about']['memory_bytes']:.2f}" if glass else "-"]
        rows.append([label(name, record), seconds_text(about, seconds)] + cells)
    head = ["", f"builds in s, {max(results['threads'])} thr", "on 1 thr", "gain", "soonest graph peer that reaches .99, s", "its seconds by kith's",
            "bytes a vector", "by glass-sq8's"]
    return markdown(head, rows)


def tables_of(kind, results):
    if kind == "graph":
        return [table_engines(results), table_ratios(kind, results), table_latency(results), table_graph_builds(results)]
    return [table_engines(results), table_ratios(kind, results), *table_settings(kind, results), table_builds(results)]


def table(content):
    parts = []
    for results in content["sets"]:
        first = next(iter(results["engines"].values()), None)
        if first is None:
            continue
        turns = max(record["rounds"] for record in results["engines"].values())
        parts.append(f"**{results['data']}**, {first['about']['rows']} x {first['about']['dim']}, {results['metric']}, {results['queries']} queries, "
                     f"k = {results['k']}; {machine_line(content['machine'])}; {turns} round{'s' if turns != 1 else ''}")
        if any(is_disturbed(record["about"]) for record in results["engines"].values()):
            parts.append("Build seconds in brackets were taken while others used the processors: not to be quoted.")
        parts += [part for part in tables_of(content["kind"], results) if part.count("\n") > 1]
    return "\n\n".join(parts)


def label(name, record):
    return "kith " + record["about"].get("spec", name[5:]) if name.startswith("kith=") else name


# ---- The figure ------------------------------------------------------------------------------------------------------


def curve(record, threads):
    """The front: medians of the rounds where a point was in them, else what the scan found."""
    rates = []
    for point in record["points"]:
        rounds = [one[str(threads)] for one in point["rounds"]]
        rates.append({"recall": point["recall"], "scan_qps": statistics.median(rounds) if rounds else point["scan_qps"]})
    return [(point["recall"], point["scan_qps"]) for point in front(rates)]


def plot(plt, contents):
    """A panel a data set: each engine's best settings on the first thread count; kith's lines are the thick ones."""
    panels = [(content, results) for content in contents for results in content["sets"]]
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(1 + 5.2 * columns, 4.2 * lines), squeeze=False)
    names = list(dict.fromkeys(name for _, results in panels for name in results["engines"]))
    colors = {name: plt.get_cmap("tab20")(at % 20) for at, name in enumerate(names)}
    for axis, (_, results) in zip(axes.flat, panels):
        for name, record in results["engines"].items():
            pairs = [pair for pair in curve(record, results["threads"][0]) if pair[0] >= 0.8] if record["points"] else []
            if pairs:
                own = name.startswith("kith=")
                axis.plot(*zip(*pairs), color=colors[name], marker="o" if own else ".", markersize=4, linewidth=2.2 if own else 1,
                          linestyle="-" if own else "--", label=label(name, record))
        axis.set_yscale("log")
        axis.set_xlim(0.8, 1.0)
        axis.set_xlabel(f"recall@{results['k']} (intersection)")
        axis.set_ylabel("queries a second")
        axis.set_title(f"{results['data']}, {results['threads'][0]} thread", fontsize=9)
        axis.grid(True, which="both", alpha=0.2)
        axis.legend(fontsize=6, loc="lower left")
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    return figure
