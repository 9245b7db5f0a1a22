# SPDX-License-Identifier: Apache-2.0
"""Training and adding alone: kith's inverted files and FAISS's of the same kind, built in turn on each thread count, each in a
process of its own, and ScaNN's whole build beside kith's compressed lists.

Both train on samples of the same size: 10 rounds of k-means for the lists, 256 rows each; in every part of a product quantiser
FAISS takes 25, kith 20 and before them 10 on a quarter of the rows. kith's OPQ takes 20 rounds, each of one move of the
codewords, after 10 for the start, and the first half of them on a quarter of the rows too: FAISS's is set to the same numbers. What was built answers the queries once, at nprobe=32: the recall stands beside the seconds.
"""
import copy
import json
import os
import statistics
import sys

import compare_data
import compare_study
from compare_report import machine_line, markdown, number
from compare_study_report import DISTURBED, goal_text

SETTING = "nprobe=32"
# title, kith's, the peer's, the least ratio
PAIRS = [
    ("IVF-Flat", "kith=IVF{lists},Flat", "faiss=IVF{lists},Flat", 3),
    ("IVFPQ", "kith=IVF{lists},PQ{pq}", "faiss=IVF{lists},PQ{pq}", 3),
    ("PQ fast-scan", "kith=IVF{lists},PQ{half}x4fs", "faiss=IVF{lists},PQ{half}x4fs", 3),
    ("OPQ", "kith=OPQ{pq},IVF{lists},PQ{pq}", "faiss=OPQ{pq},IVF{lists},PQ{pq}", 3),
    ("best compressed, by ScaNN", "kith=IVF{lists},Line64,Rf16", "scann", 1),
]


def build_once(name, folder, threads, args, make_engine):
    """What is known of a build, with the recall where the engine has the setting."""
    own = copy.copy(args)
    own.threads = [threads]
    engine = make_engine(name, folder, own, "")
    try:
        about = {key: engine.about[key] for key in ("rows", "dim", "version", "build_seconds", "train_seconds", "add_seconds", "memory_bytes", "disturbance")
                 if key in engine.about}
        if SETTING in engine.points:
            about["recall"] = engine.ask(engine.points.index(SETTING), threads)["recall"]
        return about
    finally:
        engine.close()


def measure_set(folder, content, args, make_engine, write):
    data = compare_data.read_meta(folder)["name"]
    for turn in range(args.rounds):
        for title, own, peer, least in PAIRS:
            for threads in args.threads:
                head = {"data": data, "title": title, "threads": threads, "goal": least}
                result = next((one for one in content["results"] if all(one[key] == head[key] for key in head)), None)
                if result is None:
                    result = {**head, "rounds": []}
                    content["results"].append(result)
                if len(result["rounds"]) > turn:
                    continue
                print(f"{data}: building {title} on {threads} thread{'s' if threads > 1 else ''}", file=sys.stderr, flush=True)
                result["rounds"].append({side: build_once(name, folder, threads, args, make_engine) for side, name in (("kith", own), ("peer", peer))})
                write(content)


def run(args, programs, machine, make_engine):
    """Goes on where an output file stops. Returns its content."""
    content = {"kind": "builds", "machine": machine, "results": []}
    if args.out and os.path.exists(args.out):
        with open(args.out, encoding="utf-8") as file:
            content = json.load(file)
        if content.get("kind") != "builds":
            raise SystemExit(f"{args.out}: holds results of another kind")
    if args.subset and not args.work:
        raise SystemExit("--subset needs --work, a folder for the data")

    def write(found):
        if args.out:
            with open(args.out + ".part", "w", encoding="utf-8") as file:
                json.dump(found, file, indent=1)
                file.write("\n")
            os.replace(args.out + ".part", args.out)

    for folder in args.folders:
        if args.subset:
            folder = compare_study.subset(folder, args.subset, args.queries, args.work, programs)
        measure_set(folder, content, args, make_engine, write)
    return content


def side_text(rounds, side):
    """Median seconds, of training and adding where they are known; in brackets where others had the processors."""
    abouts = [one[side] for one in rounds]
    text = number(statistics.median(about["build_seconds"] for about in abouts), 2)
    if all("train_seconds" in about for about in abouts):
        parts = [statistics.median(about[key] for about in abouts) for key in ("train_seconds", "add_seconds")]
        text += f" ({parts[0]:.2f} + {parts[1]:.2f})"
    return f"[{text}]" if any((about.get("disturbance") or 0) > DISTURBED for about in abouts) else text


def table(content):
    rows = []
    for result in content["results"]:
        rounds = result["rounds"]
        if not rounds:
            continue
        ratios = [one["peer"]["build_seconds"] / one["kith"]["build_seconds"] for one in rounds]
        middle = statistics.median(ratios)
        spread = f" ({min(ratios):.2f}..{max(ratios):.2f})" if len(ratios) > 1 else ""
        recalls = [rounds[0][side].get("recall") for side in ("kith", "peer")]
        rows.append([result["data"], result["title"], str(result["threads"]), rounds[0]["kith"]["version"].removeprefix("kith "),
                     side_text(rounds, "kith"), side_text(rounds, "peer"), goal_text(f"{middle:.2f}{spread}", middle, result["goal"]),
                     " / ".join(f"{recall:.4f}" for recall in recalls) if None not in recalls else "-"])
    head = ["data", "what", "threads", "spec", "kith s (train + add)", "the peer s", "the peer's by kith's", f"recall at {SETTING}, kith / the peer"]
    turns = max((len(result["rounds"]) for result in content["results"]), default=0)
    text = f"{machine_line(content['machine'])}; {turns} round{'s' if turns != 1 else ''}\n\n" + markdown(head, rows)
    if any(row[column].startswith("[") for row in rows for column in (4, 5)):
        text += "\n\nSeconds in brackets were taken while others used the processors: not to be quoted."
    return text
