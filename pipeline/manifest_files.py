"""The file of a manifest: `<run-dir>/manifests/<name>.jsonl`, JSON lines.

The first line is the record, a dictionary:

    kind, script    kind of output, a key of `SETTINGS_BY_OUTPUT`, and the command that makes it
    kept, many      whether it is a trained network; whether it has a file for each image
    settings        the settings that affect it
    inputs          from the name of each group of inputs to the digest of their content
    paired          the groups whose digest also tells which image a file belongs to; older manifests lack it
    upstream        from the name of each manifest that the inputs belong to, to its digest
    upstream_settings    from the same names to the settings then
    finished        whether all files are made
    file, folders   the file that messages name, and the folders of all files
    digest          digest of the content of all files except pictures and settings

Each further line is the key of a file, its path within the run folder, and its stamp: size, time in nanoseconds and
hash as one text, or None for a file that is not finished.
"""

import hashlib
import json
from fnmatch import fnmatchcase

from utils.files import atomic_write

HASHES = "hashes.jsonl"  # keys and stamps of files that no stage made; not a manifest
# Settings and pictures only describe an output. They are not part of the digest of a manifest.
DESCRIPTIONS = ("*config.json", "results/*.png")
RECORD_KEYS = {
    *("kind", "script", "kept", "many", "settings", "inputs", "upstream"),
    "upstream_settings",
    *("finished", "file", "folders", "digest"),
}
DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError)  # what reading a damaged file raises


def is_network(record):
    """Whether an output is a trained network, which is replaced only with `--overwrite`."""
    return record["kept"]


def one_file_per_image(record):
    """Whether an output has a file for each image."""
    return record["many"]


def complete(record, stamps):
    """Add to a record what follows from the files: "finished", "file", "folders" and "digest"."""
    keys = list(stamps)
    return record | {
        "finished": None not in stamps.values(),
        "file": keys[-1 if is_network(record) else 0] if keys else "",
        "folders": sorted({key.rpartition("/")[0] for key in keys}),
        "digest": digest_of(item for item in stamps.items() if not is_description(item[0])),
    }


def list_manifests(folder):
    """The files of the manifests of a run folder, sorted; those that are being written begin with a dot."""
    return sorted(path for path in folder.glob("[!.]*.jsonl") if path.name != HASHES)


def write_manifest(path, record, stamps):
    """Write a manifest, or with `record` None the stamps of files that no stage made."""
    lines = stamps.items() if record is None else [complete(record, stamps), *stamps.items()]
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in lines)


def read_record(path):
    """The record of a manifest, its first line; None if it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.loads(file.readline())
        return record if record.keys() >= RECORD_KEYS else None
    except DAMAGED:
        return None


def read_stamps(path, skip=0):
    """Dictionary from key to stamp, from the lines after the first `skip`; empty if the file is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            for _ in range(skip):
                file.readline()
            stamps = dict(map(json.loads, file))
    except DAMAGED:
        return {}
    return stamps if all(isinstance(stamp, str | None) for stamp in stamps.values()) else {}


def digest_of(stamps):
    """Digest of the content of files, given as pairs of key and stamp in any order. Missing files (None) do not count.

    It is the sum of a digest for each file: sorting them would take memory for every image.
    """
    total = 0
    for key, stamp in stamps:
        if stamp:
            line = f"{key} {hash_of(stamp)}".encode(errors="surrogateescape")
            total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return f"{total % 2**128:032x}"


def hash_of(stamp):
    """The hash of a file's content, from its stamp; None of a file that is not finished."""
    return stamp and stamp.rpartition(" ")[2]


def is_description(key):
    """Whether a file holds settings or a picture."""
    return any(fnmatchcase(key, pattern) for pattern in DESCRIPTIONS)
