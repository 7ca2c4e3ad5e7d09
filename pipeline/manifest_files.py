"""The file of a manifest: `<run-dir>/manifests/<name>.jsonl`, JSON lines.

The first line is the record, a dictionary:

    kind, script    kind of output, a key of `SETTINGS_BY_OUTPUT`, and the command that makes it
    kept, many      whether it is a trained network; whether it has a file for each image
    settings        the settings that affect it
    inputs          from the name of each group of inputs to the digest of their content
    upstream        from the name of each manifest that the inputs belong to, to its digest
    upstream_settings    from the same names to the settings then; an older version has no such entry
    finished        whether all files are made
    file, folders   the file that messages name, and the folders of all files
    digest          digest of the content of all files except pictures and settings

Each further line is the key of a file, its path within the run folder, and its stamp: size, time in nanoseconds and
hash as one text, or None for a file that is not finished.
"""

import hashlib
import json
from fnmatch import fnmatchcase

from pipeline.paths import RunFolder
from pipeline.settings import with_present_names
from utils.files import atomic_write

HASHES = "hashes.jsonl"  # keys and stamps of files that no stage made; not a manifest
# Settings and pictures only describe an output. They are not part of the digest of a manifest.
DESCRIPTIONS = ("*config.json", "results/*.png")
RECORD_KEYS = {
    *("kind", "script", "kept", "many", "settings", "inputs", "upstream"),
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
        return record | {"settings": with_present_names(record["settings"])} if record.keys() >= RECORD_KEYS else None
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


def read_former_manifests(run_dir, names):
    """Read the records of runs that an older version made, `made/<name>.json`, as manifests.

    Args:
        run_dir: the run folder.
        names: outputs that have a manifest already. They are left out.

    Returns:
        Dictionary from name to a record and a dictionary of stamps.
    """
    records, stamps, inputs, owner = {}, {}, {}, {}
    for path in sorted((RunFolder(run_dir).path / "made").glob("[!.]*.json")):
        try:
            former = json.loads(path.read_text(encoding="utf-8"))
            files, groups = as_stamps(former["outputs"]), {g: as_stamps(s) for g, s in former["inputs"].items()}
            record = {name: former[name] for name in ("kind", "script", "kept")} | {"upstream": {}}
            record["settings"] = with_present_names(former["settings"])
            if record["kind"] == "folds":
                record["script"] = record["script"].replace("cls_predict.py", "training.py")  # makes them today
            record["many"] = record["kind"] in ("copies", "masks", "crops")
            record["inputs"] = {group: digest_of(group_stamps.items()) for group, group_stamps in groups.items()}
            records[path.stem] = complete(record, files)
        except DAMAGED:
            continue
        stamps[path.stem], inputs[path.stem] = files, groups
        owner |= dict.fromkeys(files, path.stem)
    for name, groups in inputs.items():
        for key, stamp in (item for group in groups.values() for item in group.items()):
            if key in owner:
                source, upstream = owner[key], records[name]["upstream"]
                same = hash_of(stamps[source][key]) == hash_of(stamp)
                upstream[source] = records[source]["digest"] if same and upstream.get(source, True) else ""
        records[name]["upstream_settings"] = {
            source: records[source]["settings"] for source in records[name]["upstream"]
        }
    return {name: (record, stamps[name]) for name, record in records.items() if name not in names}


def as_stamps(former):
    """Stamps of a record of an older version, which holds them as lists."""
    return {key: stamp and "{} {} {}".format(*stamp) for key, stamp in former.items()}


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
