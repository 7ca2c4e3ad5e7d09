"""The file of a manifest: `<run-dir>/manifests/<name>.jsonl`, JSON lines.

The first line is the head, a dictionary:

    kind, script    kind of output, a key of `SETTINGS_BY_OUTPUT`, and the command that makes it
    kept, many      whether it is a trained network; whether it has a file for each image
    settings        the settings that affect it
    inputs          from the name of each group of inputs to the digest of their content
    upstream        from the name of each manifest that the inputs belong to, to its digest
    upstream_settings    from the same names to the settings then; an older version has no such entry
    finished        whether all files are made
    file, folders   the file that messages name, and the folders of all files
    digest          digest of the content of all files, but for pictures and settings

Each further line is the key of a file, its path within the run folder, and its stamp: size, time in nanoseconds and
hash as one text, or None for a file that is not finished.
"""

import hashlib
import json
from fnmatch import fnmatchcase

from pipeline.paths import RunFolder
from pipeline.settings import with_present_names
from utils.files import atomic_write

# Settings and pictures describe other outputs. A digest of a manifest leaves them out.
DESCRIPTIONS = ("*config.json", "results/*.png")
HEAD = {
    *("kind", "script", "kept", "many", "settings", "inputs", "upstream"),
    *("finished", "file", "folders", "digest"),
}
DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError)  # what reading a damaged file raises


def complete_head(head, stamps):
    """Add to a head what follows from the files: "finished", "file", "folders" and "digest"."""
    keys = list(stamps)
    return head | {
        "finished": None not in stamps.values(),
        "file": keys[-1 if head["kept"] else 0] if keys else "",
        "folders": sorted({key.rpartition("/")[0] for key in keys}),
        "digest": digest_of(item for item in stamps.items() if not is_description(item[0])),
    }


def write_manifest(path, head, stamps):
    """Write a manifest, or with `head` None the stamps of files that no stage made."""
    lines = stamps.items() if head is None else [complete_head(head, stamps), *stamps.items()]
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in lines)


def read_head(path):
    """The head of a manifest; None if it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline())
        return head | {"settings": with_present_names(head["settings"])} if head.keys() >= HEAD else None
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
        names: outputs that have a manifest by now, and are left out.

    Returns:
        Dictionary from name to a head and a dictionary of stamps.
    """
    heads, stamps, inputs, owner = {}, {}, {}, {}
    for path in sorted((RunFolder(run_dir).path / "made").glob("[!.]*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            files, groups = as_stamps(record["outputs"]), {g: as_stamps(s) for g, s in record["inputs"].items()}
            head = {name: record[name] for name in ("kind", "script", "kept")} | {"upstream": {}}
            head["settings"] = with_present_names(record["settings"])
            if head["kind"] == "folds":
                head["script"] = head["script"].replace("cls_predict.py", "training.py")  # which makes them today
            head["many"] = head["kind"] in ("copies", "masks", "crops")
            head["inputs"] = {group: digest_of(group_stamps.items()) for group, group_stamps in groups.items()}
            heads[path.stem] = complete_head(head, files)
        except DAMAGED:
            continue
        stamps[path.stem], inputs[path.stem] = files, groups
        owner |= dict.fromkeys(files, path.stem)
    for name, groups in inputs.items():
        for key, stamp in (item for group in groups.values() for item in group.items()):
            if key in owner:
                source, upstream = owner[key], heads[name]["upstream"]
                same = content(stamps[source][key]) == content(stamp)
                upstream[source] = heads[source]["digest"] if same and upstream.get(source, True) else ""
        heads[name]["upstream_settings"] = {source: heads[source]["settings"] for source in heads[name]["upstream"]}
    return {name: (head, stamps[name]) for name, head in heads.items() if name not in names}


def as_stamps(record):
    """Stamps of a former record, which held them as lists."""
    return {key: stamp and "{} {} {}".format(*stamp) for key, stamp in record.items()}


def digest_of(stamps):
    """Digest of the content of files, given as pairs of key and stamp in any order; a missing file (None) is left out.

    It is the sum of a digest for each file: sorting them would take memory for every image.
    """
    total = 0
    for key, stamp in stamps:
        if stamp:
            line = f"{key} {content(stamp)}".encode(errors="surrogateescape")
            total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return f"{total % 2**128:032x}"


def content(stamp):
    """The hash in a stamp."""
    return stamp and stamp.rpartition(" ")[2]


def is_description(key):
    """Whether a file holds settings or a picture."""
    return any(fnmatchcase(key, pattern) for pattern in DESCRIPTIONS)
