"""Record the settings and inputs of every output, so that a stage can skip work that is up to date and refuse outdated
inputs.

Every output of a stage has a manifest, `<run-dir>/manifests/<name>.jsonl`. Its first line holds the settings that
affect the output, a digest of each group of inputs, and the digests of the manifests that the inputs belong to. Each
further line holds the path, size, time and hash of a file of the output. `hashes.jsonl` holds the same of files that no
stage made, so that no file is hashed twice.

Only the content of a file counts. A file with the recorded size and time is not read again. Paths are relative to the
run folder or the data folder, so a run that was copied or moved is still up to date.

A stage checks its own inputs file by file. Of what these were made from, it compares the digests in the manifests.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial

from config import PRESETS
from pipeline.paths import RunFolder
from pipeline.settings import PER_CALL_SETTINGS, affects, as_json, as_typed, with_present_names, write_settings
from utils.errors import InputError
from utils.files import TEMPORARY, atomic_write, lock, remove_parts

CHUNK = 64  # files looked at together
CHECKPOINTS = ("epoch_*.npz", "history.csv", f"{TEMPORARY}*")  # the files that `pipeline.fitting.Checkpoints` writes
# Settings and pictures describe other outputs. A digest of a manifest leaves them out.
DESCRIPTIONS = ("*config.json", "results/*.png")


class Manifests:
    """The manifests of a run folder.

    Args:
        config: the settings.

    Attributes:
        heads: dictionary from the name of each manifest to its first line.
        reached: names of the manifests that `check` looked at.
    """

    def __init__(self, config):
        self.config, self.folder = config, RunFolder(config.run_dir).manifests
        self.heads, self.former = {}, {}
        for path in sorted(self.folder.glob("[!.]*.jsonl")):
            if head := read_head(path):
                self.heads[path.stem] = head
        self.outputs_of, self.hashes, self.new_hashes = {}, None, False
        self.read_former()
        self.names_in = {}  # from each folder to the manifests that have files there
        for name, head in self.heads.items():
            for folder in head["folders"]:
                self.names_in.setdefault(folder, []).append(name)
        self.reached = []

    def key(self, path):
        """Path of a file within the run folder or the data folder; the name of a file that is elsewhere."""
        for folder in (self.config.run_dir, self.config.data_dir):
            if path.is_relative_to(folder):
                return path.relative_to(folder).as_posix()
        return path.name

    def outputs(self, name):
        """Dictionary from the key of each file of a manifest to its stamp, or to None if the file is not finished."""
        if name not in self.outputs_of:
            self.outputs_of[name] = self.former.get(name) or read_stamps(self.folder / f"{name}.jsonl", skip=1)
        return self.outputs_of[name]

    def maker(self, key):
        """Name of the manifest that a file belongs to; None if there is none."""
        for name in self.names_in.get(key.rpartition("/")[0], ()):
            if key in self.outputs(name):
                return name
        return None

    def stamp(self, path):
        """Size, time in nanoseconds and hash of a file, as text; None if there is no file."""
        if not path.is_file():
            return None
        self.load_hashes()
        key, status = self.key(path), path.stat()
        size_and_time = f"{status.st_size} {status.st_mtime_ns} "
        maker = self.maker(key)
        for stamp in (maker and self.outputs(maker)[key], self.hashes.get(key)):
            if stamp and stamp.startswith(size_and_time):
                return stamp
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16))
        stamp = size_and_time + digest.hexdigest()
        self.hashes[key], self.new_hashes = stamp, True
        return stamp

    def load_hashes(self):
        """Read the stamps of files that no stage made, unless they are in memory."""
        if self.hashes is None:
            self.hashes = read_stamps(self.folder / "hashes.jsonl")

    def stamps(self, paths):
        """Yield the key and the stamp of each file; the stamp of a missing file is None."""
        self.load_hashes()
        with ThreadPoolExecutor(self.config.workers) as pool:
            for start in range(0, len(paths), CHUNK):  # a task in the pool takes 1 kB
                chunk = paths[start : start + CHUNK]
                yield from zip(map(self.key, chunk), pool.map(self.stamp, chunk), strict=True)

    def modified(self, name, paths):
        """The files that are missing, or whose content changed since they were made."""
        recorded, stamps = self.outputs(name), self.stamps(paths)
        return [
            path
            for path, (key, stamp) in zip(paths, stamps, strict=True)
            if stamp is None or content(stamp) != content(recorded.get(key))
        ]

    def release(self):
        """Save the new hashes of inputs, and free the memory that stamps take."""
        if self.new_hashes:
            write_lines(self.folder / "hashes.jsonl", [], sorted(self.hashes.items()))
        self.outputs_of, self.hashes, self.new_hashes = {}, None, False

    def check(self, paths, must_match=(), kinds=None):
        """Check that these files and everything upstream of them are unchanged since they were made.

        Args:
            paths: files of the run folder. A file without a manifest was put there by hand and is accepted.
            must_match: names of settings that must have the values of today in all manifests upstream.
            kinds: the kinds of output, keys of `SETTINGS_BY_OUTPUT`, for which they must; None for all.

        Returns:
            List of the names of the manifests that the files belong to.

        Raises:
            InputError: naming the first file that was changed, that was made from outdated files or with settings that
                contradict others, and the script that makes it.
        """
        direct = {}
        for path in paths:
            key = self.key(path)
            if name := self.maker(key):
                direct[name] = None
                self.follow(name)
                self.check_file(name, key)
        self.check_settings(must_match, kinds)
        return list(direct)

    def follow(self, name):
        """Check that an output was made from the present outputs of earlier stages, and these in turn."""
        if name in self.reached:
            return
        self.reached.append(name)
        head = self.heads[name]
        for source, digest in head["upstream"].items():
            if source not in self.heads:  # its files are without a manifest by now
                continue
            self.follow(source)
            for key in self.few_files(source):
                self.check_file(source, key)
            if self.heads[source]["digest"] != digest:
                self.check_file(source, self.heads[source]["file"])  # it may not be finished
                former = f", or make {source} again as it was" if head["kept"] else ""
                changed = "".join(f", with {text}" for text in upstream_changes(head, self.heads, [source]))
                raise InputError(
                    f"{self.config.run_dir / head['file']} was made from an earlier {source} "
                    f"({self.heads[source]['file']}){changed}: {again(head)}{former}"
                )

    def few_files(self, name):
        """The files of an output to look at when it is upstream: the network, or all unless there is one an image."""
        head = self.heads[name]
        if head["many"]:
            return []
        return [head["file"]] if head["kept"] else [key for key in self.outputs(name) if not is_description(key)]

    def check_file(self, name, key):
        """Check that a file is finished and unchanged, if it is there."""
        head, path, recorded = self.heads[name], self.config.run_dir / key, self.outputs(name).get(key)
        if recorded is None:
            raise InputError(f"{path} is not finished, or is being made: run `python {head['script']}`")
        present = self.stamp(path)
        if present and content(present) != content(recorded):
            raise InputError(f"{path} was changed after it was made: {again(head)}")

    def check_settings(self, must_match, kinds):
        """Check that the manifests looked at agree in their settings, and with those of today that must match."""
        present, published = as_json(self.config), as_json(PRESETS["isic2017"])
        first_of_kind = {}
        for name in self.reached:
            head = self.heads[name]
            first = first_of_kind.setdefault((head["kind"], head["settings"].get("backbone_name")), name)
            for setting, value in head["settings"].items():
                other = self.heads[first]["settings"].get(setting, published.get(setting))
                if differ(setting, value, other):
                    raise InputError(
                        f"{name} of {self.config.run_dir} was made with {setting} = {as_typed(value)}, {first} with "
                        f"{as_typed(other)}: run `python {head['script']}` for both with the same settings"
                    )
                counts = setting in must_match and (kinds is None or head["kind"] in kinds)
                if counts and differ(setting, value, present[setting]):
                    raise InputError(
                        f"{setting} = {as_typed(present[setting])}, but {name} of {self.config.run_dir} was made with "
                        f"{as_typed(value)}: give the settings that made the run, or run `python {head['script']}`"
                    )

    def made_with(self, setting, kind, backbone_name=None):
        """A setting of the outputs of a kind that `check` looked at; the setting of today if there are none."""
        for head in map(self.heads.get, self.reached):
            if (head["kind"], head["settings"].get("backbone_name")) == (kind, backbone_name):
                return head["settings"].get(setting, getattr(PRESETS["isic2017"], setting))
        return getattr(self.config, setting)

    def read_former(self):
        """Read the records of an older version, `made/*.json` of the run folder, as manifests."""
        records = {}
        for path in sorted((self.config.run_dir / "made").glob("[!.]*.json")):
            record = read_former_record(path)
            if record and path.stem not in self.heads:
                records[path.stem] = record
        for name, record in records.items():
            self.former[name] = record["outputs"]
            many = record["kind"] in ("copies", "masks", "crops")
            self.heads[name] = head_of(record, record["outputs"]) | {"many": many}
        if not records:
            return
        owner = {key: name for name in self.heads for key in self.outputs(name)}
        for name, record in records.items():
            head, used = self.heads[name], {}
            for group, stamps in record["inputs"].items():
                head["inputs"][group] = digest_of(stamps.items())
                for key, stamp in stamps.items():
                    if key in owner:
                        source = owner[key]
                        same = content(self.outputs(source)[key]) == content(stamp)
                        used[source] = used.get(source, True) and same
            head["upstream"] = {source: self.heads[source]["digest"] if same else "" for source, same in used.items()}


class Manifest:
    """An output of a stage: some files, and what they are made from.

    Args:
        config: the settings.
        name: name of the output, for example "masks_validation".
        kind: kind of output, a key of `SETTINGS_BY_OUTPUT`.
        script: the command that makes it, for messages.
        inputs: dictionary from the name of a group of inputs to their files.
        outputs: the files that are made; of a network the last one.
        checkpoints: folder of an unfinished training, or None. Training takes hours, so a trained or partly trained
            network is replaced only with `config.overwrite`.
        one_by_one: after an interruption, the stage makes only the files that are missing.
        obsolete: files that the stage makes with other settings. They are removed when the output is made.
        wait: seconds to wait for another process that makes the same output, instead of refusing.
        must_match: see `Manifests.check`.
        ignored: settings that have no effect this time.
    """

    def __init__(
        self,
        config,
        name,
        kind,
        script,
        inputs,
        outputs,
        *,
        checkpoints=None,
        one_by_one=False,
        obsolete=(),
        wait=0,
        must_match=(),
        ignored=(),
    ):
        self.config, self.name, self.kind, self.script = config, name, kind, script
        self.inputs = {group: list(paths) for group, paths in inputs.items()}
        self.outputs, self.obsolete = list(outputs), obsolete
        self.checkpoints, self.one_by_one = checkpoints, one_by_one
        self.wait, self.must_match = wait, must_match
        self.file = RunFolder(config.run_dir).manifests / f"{name}.jsonl"
        self.settings = {
            setting: value
            for setting, value in as_json(config).items()
            if affects(setting, kind) and setting not in ignored
        }
        self.lock = None

    def up_to_date(self):
        """Whether nothing changed since the output was made. Prints the answer.

        If something did, the output is locked until `finish`, or until the process ends.

        Raises:
            InputError: if another process makes the same output, if an input is outdated (see `Manifests.check`), or if
                a finished or unfinished training would be lost.
        """
        self.lock = lock(self.file.with_suffix(".lock"), self.wait)
        if self.lock is None:
            raise InputError(f"another process is making {self.name} in {self.config.run_dir}: wait for its end")
        self.manifests = Manifests(self.config)
        sources = self.manifests.check((path for paths in self.inputs.values() for path in paths), self.must_match)
        self.upstream = {source: self.manifests.heads[source]["digest"] for source in sources}
        self.upstream_settings = {source: self.manifests.heads[source]["settings"] for source in sources}
        self.digests = {group: digest_of(self.manifests.stamps(paths)) for group, paths in self.inputs.items()}
        self.before = self.manifests.heads.get(self.name)
        self.finished = bool(self.before and self.before["finished"])
        self.changes = self.changes_since() if self.before else {}
        modified = self.modified_outputs() if self.finished and not self.changes else []
        if self.config.overwrite:
            self.manifests.release()
            print(f"{self.name}: making it again")
            return False
        if self.finished and not self.changes and not modified:
            print(f"{self.name}: nothing changed since it was made")
            if self.before["upstream"] != self.upstream:  # an earlier stage made other files beside those used here
                head = self.before | {"upstream": self.upstream}
                write_lines(self.file, [head], self.manifests.outputs(self.name).items())
            self.manifests.release()
            self.remove_checkpoints()
            self.lock.release()
            return True
        self.manifests.release()
        self.refuse_overwrite(modified)
        if self.changes:
            print(f"{self.name}: {', '.join(self.changes)} changed, making it again")
        elif modified:
            print(f"{self.name}: {len(modified)} files are missing or changed, making them again")
        elif self.before:
            print(f"{self.name}: going on")
        elif any(path.exists() for path in self.outputs):
            print(f"{self.name}: no record of how the existing files were made: making them again")
        return False

    def refuse_overwrite(self, modified):
        """Refuse to replace a trained or partly trained network.

        Raises:
            InputError: naming what changed, and the option that replaces the network all the same.
        """
        if self.checkpoints is None or (self.before and not self.changes and not modified):
            return
        trained = [path for path in self.outputs if path.suffix == ".keras" and path.exists()]
        trained += [path for path in [self.checkpoints] if path.is_dir() and any(path.iterdir())]
        if not trained:
            return
        if not self.before:
            reason = f"there is no record of how {trained[0]} was made"
        elif modified:
            reason = f"{modified[0]} is missing or was changed after training"
        else:
            changes = [*self.changes.values(), *upstream_changes(self.before, self.manifests.heads, self.upstream)]
            reason = f"{trained[0]} was made with {', '.join(changes)}"
        raise InputError(
            f"{reason}: run `python {self.script} --overwrite` to train again, or choose another --run-dir"
        )

    def changes_since(self):
        """Dictionary from each setting, or group of inputs, that changed to a description of the change."""
        published, settings = as_json(PRESETS["isic2017"]), self.before["settings"]
        changes = {}
        for setting, value in self.settings.items():
            if differ(setting, former := settings.get(setting, published[setting]), value):
                changes[setting] = f"{setting} = {as_typed(former)}, not {as_typed(value)}"
        nothing = digest_of([])
        for group in {**self.before["inputs"], **self.digests}:
            if self.before["inputs"].get(group, nothing) != self.digests.get(group, nothing):
                changes[group] = f"other {group}"
        return changes

    def modified_outputs(self):
        """The outputs that are missing, or whose content changed since they were made."""
        return self.manifests.modified(self.name, self.outputs)

    def begin(self):
        """Record that the output is being made. To be called when everything is ready that can fail early.

        Existing files stay until they are replaced. Only those go that a stage making one file after another would take
        for finished.
        """
        anew = not self.before or self.changes or self.config.overwrite
        if self.one_by_one:
            modified = self.outputs if anew else self.modified_outputs() if self.finished else ()
            for path in modified or filter(is_empty, self.outputs):
                path.unlink(missing_ok=True)
        for path in set(self.obsolete).difference(self.outputs):
            path.unlink(missing_ok=True)
        if anew:
            self.remove_checkpoints()
        remove_parts([*self.outputs, self.file])
        for part in self.checkpoints.rglob(f"{TEMPORARY}*") if self.checkpoints else ():
            part.unlink(missing_ok=True)
        settings_file = RunFolder(self.config.run_dir).settings
        if not settings_file.exists():
            write_settings(self.config, settings_file, PER_CALL_SETTINGS)
        self.write(dict.fromkeys(map(self.manifests.key, self.outputs)))

    def finish(self):
        """Record that the output is made, and remove the checkpoints.

        Raises:
            InputError: if an input changed meanwhile.
        """
        for group, paths in self.inputs.items():
            if digest_of(self.manifests.stamps(paths)) != self.digests[group]:
                raise InputError(
                    f"{group} in {paths[0].parent} changed while {self.name} was made from them: "
                    f"run the same command again"
                )
        self.write(dict(self.manifests.stamps(self.outputs)))
        self.manifests = None  # frees memory
        self.remove_checkpoints()
        self.lock.release()

    def remove_checkpoints(self):
        """Remove the files of the checkpoints, and no other: the folder may be a link to somebody's files."""
        for folder in (self.checkpoints / "head", self.checkpoints) if self.checkpoints else ():
            for path in (path for pattern in CHECKPOINTS for path in folder.glob(pattern)):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()

    def write(self, stamps):
        """Write the manifest; its stamps are None for files that are not finished."""
        record = {"kind": self.kind, "script": self.script, "kept": self.checkpoints is not None}
        record |= {"settings": self.settings}
        head = head_of(record, stamps) | {"inputs": self.digests, "upstream": self.upstream, "many": self.one_by_one}
        head["upstream_settings"] = self.upstream_settings
        write_lines(self.file, [head], stamps.items())


def head_of(record, stamps):
    """First line of a manifest, but for what it was made from.

    Args:
        record: dictionary with "kind", "script", "settings", and "kept", whether it is a trained network.
        stamps: dictionary from the key of each file to its stamp, or None.
    """
    keys = list(stamps)
    return {name: record[name] for name in ("kind", "script", "kept", "settings")} | {
        "finished": None not in stamps.values(),
        "folders": sorted({key.rpartition("/")[0] for key in keys}),
        "file": keys[-1 if record["kept"] else 0] if keys else "",  # the one that messages name
        "digest": digest_of(item for item in stamps.items() if not is_description(item[0])),
        "inputs": {},
        "upstream": {},
    }


def read_head(path):
    """First line of a manifest; None if it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline())
        head["settings"] = with_present_names(head["settings"])
        kinds = {"settings": dict, "inputs": dict, "upstream": dict, "folders": list, "kept": bool, "many": bool}
        kinds |= {"finished": bool} | dict.fromkeys(("kind", "script", "file", "digest"), str)
        return head if all(isinstance(head[name], kind) for name, kind in kinds.items()) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def read_stamps(path, skip=0):
    """Dictionary from key to stamp that the lines of a file hold; a damaged file holds none."""
    try:
        with open(path, encoding="utf-8") as file:
            for _ in range(skip):
                file.readline()
            stamps = dict(map(json.loads, file))
    except (FileNotFoundError, ValueError, TypeError):
        return {}
    return stamps if all(isinstance(stamp, str | None) for stamp in stamps.values()) else {}


def write_lines(path, head, stamps):
    """Write a file of JSON lines."""
    with atomic_write(path) as part, open(part, "w", encoding="utf-8") as file:
        for line in (*head, *stamps):
            file.write(json.dumps(line) + "\n")


def read_former_record(path):
    """A record of an older version; None if it is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["settings"] = with_present_names(record["settings"])
        if record["kind"] == "folds":
            record["script"] = record["script"].replace("cls_predict.py", "training.py")  # which makes them today
        record["inputs"] = {group: as_stamps(stamps) for group, stamps in record["inputs"].items()}
        record["outputs"] = as_stamps(record["outputs"])
        sound = all(isinstance(record[name], kind) for name, kind in (("kept", bool), ("script", str), ("kind", str)))
        return record if sound else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def as_stamps(record):
    """Stamps as an older version kept them, as texts."""
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


def upstream_changes(head, heads, sources):
    """Which settings of the files that an output was made from have changed since, as texts without repetition.

    Args:
        head: first line of the manifest of the output. One of an older version does not hold these settings.
        heads: dictionary from the name of each manifest to its first line.
        sources: names of the manifests of the files that it was made from.
    """
    texts = {}
    for source in sources:
        former = head.get("upstream_settings", {}).get(source, {})
        for setting, value in heads[source]["settings"].items():
            if setting in former and differ(setting, former[setting], value):
                texts[f"{setting} = {as_typed(former[setting])}, not {as_typed(value)}"] = None
    return list(texts)


def again(head):
    """The command that makes an output again, for a message."""
    return f"run `python {head['script']}{' --overwrite' if head['kept'] else ''}`"


def is_description(key):
    """Whether a file holds settings or a picture."""
    return any(fnmatchcase(key, pattern) for pattern in DESCRIPTIONS)


def differ(setting, value, other):
    """Whether two values of a setting differ. The precision "auto" is equal to any, as the checkpoint holds it."""
    return value != other and not (setting == "mixed_precision" and "auto" in (value, other))


def is_empty(path):
    """Whether a file is empty, as after a power cut."""
    return path.is_file() and not path.stat().st_size
