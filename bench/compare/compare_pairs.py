# SPDX-License-Identifier: Apache-2.0
"""What the studies hold against what: kith's specs, the peers, and the least ratios that are wanted."""
import re

COMPRESSED = r"kith=IVF[^,]*,(PQ\S*x4fs|Line\d*|RaBitQ\d*|SQ4),R"
ANY_PEER = r"(?!kith=)"


class Pair:
    """`name` stands for it on the command line. kith's specs and the peers are patterns of engines' names: the best of the specs in
    a round stands against the best of the peers. `least`: ratios of batch rates that are wanted at each recall; `least_single` those
    of a single query's p50. With `settings` rates are compared at these, not at a recall, and kith's recall has to be the peer's less
    `recall_slack` at least: for codes that do not get near a recall of .90."""

    def __init__(self, name, title, own, peers, least=(None, None, None), least_single=None, settings=(), recall_slack=None):
        self.name, self.title, self.own, self.peers = name, title, own, peers
        self.least, self.least_single, self.settings, self.recall_slack = least, least_single, settings, recall_slack

    def has(self, engine):
        return bool(re.match(self.own, engine) or re.match(self.peers, engine))


PAIRS = {
    "ivf": [
        Pair("flat", "IVF-Flat by faiss IVF,Flat", r"kith=IVF[^,]*,Flat$", "faiss-ivf$", (2.5, 2.5, 2.5), 1.3),
        Pair("sq8", "IVF-SQ8 by faiss IVF,SQ8", r"kith=IVF[^,]*,SQ8$", "faiss-ivfsq8$", (2, 2, 2)),
        Pair("pq", "IVF-PQ by faiss IVF,PQ", r"kith=IVF[^,]*,PQ(\d+|\{pq\})$", "faiss-ivfpq$", (1.3, 1.3, 1.3),
             settings=("nprobe=8", "nprobe=32", "nprobe=128"), recall_slack=0.003),
        Pair("fs", "best compressed + refine by faiss IVF,PQx4fs,RFlat", COMPRESSED, r"faiss-ivfpqfs\d*$", (1.5, 1.5, 1.5)),
        Pair("scann", "best compressed + refine by ScaNN", COMPRESSED, "scann$", (2, 2, 1.5)),
        Pair("rabitqlib", "RaBitQ by rabitqlib's IVF", r"kith=.*RaBitQ", r"rabitq-ivf\w*$", (1.3, 1.3, 1.3)),
        Pair("rabitq", "RaBitQ by faiss IVF,RaBitQfs,RFlat", r"kith=.*RaBitQ", "faiss-ivfrabitq1$", (2, 2, 2)),
        Pair("rabitq4", "RaBitQ by faiss IVF,RaBitQfs4,RFlat", r"kith=.*RaBitQ", "faiss-ivfrabitq$"),
    ],
    "graph": [
        Pair("best", "best of kith by the best peer", "kith=", ANY_PEER, (2, 2, 2), 1.5),
        Pair("hnswlib", "best of kith by hnswlib", "kith=", "hnswlib$", (4, 4, 4)),
        Pair("glass", "best of kith by glass", "kith=", "glass"),
        Pair("symqg", "best of kith by symqg", "kith=", "symqg$"),
    ],
}
# Build time of inverted files: kith's specs, the peer, the least ratio.
BUILDS = [
    (r"kith=IVF[^,]*,Flat$", "faiss-ivf", 3), (r"kith=IVF[^,]*,PQ(\d+|\{pq\})$", "faiss-ivfpq", 3),
    (r"kith=IVF[^,]*,PQ\S*x4fs", "faiss-ivfpqfs", 3), (COMPRESSED, "scann", 1),
]


def pairs_named(kind, names):
    """The pairs of a kind of study with these names, all for an empty list."""
    unknown = set(names) - {pair.name for pair in PAIRS[kind]}
    if unknown:
        raise SystemExit(f"--only: {', '.join(sorted(unknown))}: not one of {', '.join(pair.name for pair in PAIRS[kind])}")
    return [pair for pair in PAIRS[kind] if not names or pair.name in names]


def settings_of(kind, engine):
    """The settings that an engine is measured at, where it is not measured at a recall."""
    return [setting for pair in PAIRS[kind] if pair.settings and pair.has(engine) for setting in pair.settings]
