"""What the files of a run folder were made from, so that nothing is made twice and old and new never mix.

For each thing that a stage makes, `<run-dir>/made/<name>.json` holds the settings that counted and, of every file that
it was made from or consists of, size, time and a hash of the content. What a file holds decides; one whose size and
time are as recorded is not read again. So a run that was copied or moved is still up to date.

A stage asks `Made` before it makes anything. Whatever it reads has then been followed through the records to where it
came from (`Records.check`): a file that was changed by hand, or made from what is no longer there, is refused, and the
script that makes it is named. Only files of the run folder are followed: the data set may be elsewhere by then.
"""

import ast
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from config import PRESETS
from data.errors import InputError
from data.files import PART, lock, remove_parts, whole_file
from pipeline.settings import PER_CALL_SETTINGS, affects, as_json, as_typed, with_present_names, write_settings

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("data", "evaluation", "models", "pipeline")  # what decides how files are made, beside the script
CHECKPOINTS = ("epoch_*.npz", "history.csv", f"{PART}*")  # what `pipeline.fitting.Checkpoints` writes


class Records:
    """The records of a run folder, and the files that they know.

    Files go by their place within the run folder, or within the data set, or by their name where they are elsewhere.

    Args:
        config: the settings.
    """

    def __init__(self, config):
        self.config = config
        found = {path.stem: read_record(path) for path in sorted((config.run_dir / "made").glob("[!.]*.json"))}
        self.all = {name: record for name, record in found.items() if record}
        self.maker = {key: name for name, record in self.all.items() for key in record["outputs"]}
        self.hashes = {}
        for record in self.all.values():
            for group in (record["outputs"], *record["inputs"].values()):
                self.hashes |= {(key, *stamp[:2]): stamp[2] for key, stamp in group.items() if stamp}
        self.seen, self.reached = set(), []

    def key(self, path):
        """What a file goes by."""
        for folder in (self.config.run_dir, self.config.data_dir):
            if path.is_relative_to(folder):
                return path.relative_to(folder).as_posix()
        return path.name

    def stamp(self, path):
        """Size, time in nanoseconds and hash of a file; None if there is none."""
        if not path.is_file():
            return None
        stat = path.stat()
        known = self.key(path), stat.st_size, stat.st_mtime_ns
        if known not in self.hashes:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16))
            self.hashes[known] = digest.hexdigest()
        return [*known[1:], self.hashes[known]]

    def stamps(self, paths):
        """Dictionary from what each file goes by to its stamp; files that are missing are left out."""
        with ThreadPoolExecutor(self.config.workers) as pool:
            return {
                self.key(path): stamp for path, stamp in zip(paths, pool.map(self.stamp, paths), strict=True) if stamp
            }

    def check(self, paths, agree=(), of=None):
        """Make sure that files, and all that they were made from, stand as they were made.

        Args:
            paths: files of the run folder. One without a record, put there by hand, is taken as it is.
            agree: names of settings that all of it must have been made with as they are now.
            of: kinds of files, keys of `config.SETTINGS_BY_OUTPUT`, whose settings `agree` is about; None for all.

        Raises:
            InputError: naming the first file that is not what it was, that was made from something else than stands
                there now, or with settings that contradict those of another, and the script that makes it.
        """
        for path in paths:
            self.follow(self.key(path))
        settings, published = as_json(self.config), as_json(PRESETS["isic2017"])
        alike = {}
        for name in self.reached:
            record = self.all[name]
            first = alike.setdefault((record["kind"], record["settings"].get("backbone_name")), name)
            theirs = self.all[first]["settings"]
            for setting, value in record["settings"].items():
                other = theirs.get(setting, published.get(setting))
                if differ(setting, value, other):
                    raise InputError(
                        f"{name} of {self.config.run_dir} was made with {setting} = {as_typed(value)}, {first} with "
                        f"{as_typed(other)}: run `python {record['script']}` for both with the same settings"
                    )
                if (
                    setting in agree
                    and (of is None or record["kind"] in of)
                    and differ(setting, value, settings[setting])
                ):
                    raise InputError(
                        f"{setting} = {as_typed(settings[setting])}, but {name} of {self.config.run_dir} was made with "
                        f"{as_typed(value)}: give the settings that made the run, or run `python {record['script']}`"
                    )

    def follow(self, key):
        """Check one file, and first all that it was made from."""
        if key in self.seen or key not in self.maker:
            return
        self.seen.add(key)
        name = self.maker[key]
        record = self.all[name]
        inputs = {}  # those of a record are looked at once, not with each of its files
        if name not in self.reached:
            inputs = {known: stamp for group in record["inputs"].values() for known, stamp in group.items()}
            self.reached.append(name)
            for known in inputs:
                self.follow(known)
        path = self.config.run_dir / key
        made, now = record["outputs"][key], self.stamp(path)
        if made is None:
            raise InputError(f"{path} is not finished, or is being made: run `python {record['script']}`")
        again = f"run `python {record['script']}{' --overwrite' if record['kept'] else ''}`"
        if now and now[2] != made[2]:
            raise InputError(f"{path} is no longer what was made: {again}")
        for known, stamp in inputs.items():
            now = self.stamp(self.config.run_dir / known)
            if now and now[2] != stamp[2]:
                former = f", or make {known} again as it was" if record["kept"] else ""
                raise InputError(f"{path} was made from another {known} than stands there now: {again}{former}")

    def made_with(self, setting, kind, backbone_name=None):
        """A setting with which the files of a kind that `check` reached were made; that of today if none tells."""
        for record in map(self.all.get, self.reached):
            if (record["kind"], record["settings"].get("backbone_name")) == (kind, backbone_name):
                return record["settings"].get(setting, getattr(PRESETS["isic2017"], setting))
        return getattr(self.config, setting)


class Made:
    """Files that a stage makes, and what they are made from.

    Args:
        config: the settings.
        name: what is made, for example "masks_validation".
        kind: what it depends on, a key of `config.SETTINGS_BY_OUTPUT`.
        script: the command that makes it, to be named where it has to be made again.
        inputs: dictionary from what they are to the files that count.
        outputs: files that are made.
        checkpoints: folder of an unfinished training, or None. What has one takes hours: once there is something of it,
            it is made again with `config.overwrite` alone.
        one_by_one: an interrupted stage goes on with the outputs that are not there yet.
        wait: seconds to wait for another process that makes the same, instead of refusing.
        agree: see `Records.check`.
        ignored: settings that do not count this time.
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
        wait=0,
        agree=(),
        ignored=(),
    ):
        self.config, self.name, self.kind, self.script = config, name, kind, script
        self.wait, self.agree = wait, agree
        self.paths = {group: list(map(Path, paths)) for group, paths in inputs.items()}
        self.outputs, self.checkpoints, self.one_by_one = list(outputs), checkpoints, one_by_one
        self.record = config.run_dir / "made" / f"{name}.json"
        self.settings = {
            key: value for key, value in as_json(config).items() if affects(key, kind) and key not in ignored
        }
        self.lock = None

    def up_to_date(self):
        """Whether nothing changed and all files stand as they were made; says so, or says what changed.

        Unless they do, the files are locked from here on until `finish`, or until the process ends.

        Raises:
            InputError: if another process makes the same, if what it is made from is stale (see `Records.check`), or if
                a finished or unfinished training would be lost.
        """
        self.lock = lock(self.record.with_suffix(".lock"), self.wait)
        if self.lock is None:
            raise InputError(f"another process is making {self.name} in {self.config.run_dir}: wait for its end")
        self.records = Records(self.config)
        self.records.check((path for paths in self.paths.values() for path in paths), self.agree)
        self.inputs = {group: self.records.stamps(paths) for group, paths in self.paths.items()}
        self.before = self.records.all.get(self.name)
        self.finished = self.before is not None and None not in self.before["outputs"].values()
        self.changes = self.changes_since() if self.before else {}
        spoilt = self.spoilt() if self.finished and not self.changes else []
        if self.config.overwrite:
            print(f"{self.name}: making it anew")
            return False
        if self.finished and not self.changes and not spoilt:
            code = [file for file, content in self.before["code"].items() if source(REPOSITORY / file) != content]
            changed = f" but {', '.join(code)}; --overwrite makes it anew" if code else ""
            print(f"{self.name}: nothing changed since it was made{changed}")
            self.remove_checkpoints()
            self.lock.release()
            return True
        self.keep_work(spoilt)
        if self.changes:
            print(f"{self.name}: {', '.join(self.changes)} changed, making it again")
        elif spoilt:
            print(f"{self.name}: {len(spoilt)} files are missing or changed, making them again")
        elif self.before:
            print(f"{self.name}: going on")
        elif any(path.exists() for path in self.outputs):
            print(f"{self.name}: nothing tells what the files that stand were made from, making them again")
        return False

    def keep_work(self, spoilt):
        """Refuse to go on where a training would be lost.

        Raises:
            InputError: saying what differs, and how to have it made anew all the same.
        """
        if self.checkpoints is None or (self.before and not self.changes and not spoilt):
            return
        trained = [path for path in self.outputs if path.suffix == ".keras" and path.exists()]
        trained += [path for path in [self.checkpoints] if path.is_dir() and any(path.iterdir())]
        if not trained:
            return
        if not self.before:
            why = f"nothing tells what {trained[0]} was made from"
        elif spoilt:
            why = f"{spoilt[0]} is missing or no longer what was made"
        else:
            why = f"{trained[0]} was made with {', '.join(self.changes.values())}"
        raise InputError(f"{why}: pass --overwrite to make it anew, or choose another --run-dir")

    def changes_since(self):
        """Dictionary from what changed since the record was written to how it was."""
        published, settings = as_json(PRESETS["isic2017"]), self.before["settings"]
        changes = {}
        for setting, value in self.settings.items():
            if differ(setting, then := settings.get(setting, published[setting]), value):
                changes[setting] = f"{setting} = {as_typed(then)}, not {as_typed(value)}"
        for group in {**self.before["inputs"], **self.inputs}:
            if hashes(self.before["inputs"].get(group, {})) != hashes(self.inputs.get(group, {})):
                changes[group] = f"other {group}"
        return changes

    def spoilt(self):
        """The outputs that no longer are what they were when they were made."""
        then, now = hashes(self.before["outputs"]), hashes(self.records.stamps(self.outputs))
        keys = {path: self.records.key(path) for path in self.outputs}
        return [path for path, key in keys.items() if key not in now or then.get(key) != now[key]]

    def begin(self):
        """Note that the files are being made; to be called once all that can fail early has not.

        What stands stays until it is replaced, but for what would be taken for finished by a stage that goes on, and
        for what is no longer made.
        """
        former = self.before["outputs"] if self.before else {}
        folders = {path.parent for path in self.outputs}
        run_dir = self.config.run_dir.resolve()
        for path in {self.config.run_dir / key for key in former}.difference(self.outputs):
            if path.parent in folders and path.parent.resolve().is_relative_to(run_dir):
                path.unlink(missing_ok=True)
        anew = not self.before or self.changes or self.config.overwrite
        if self.one_by_one:
            for path in self.outputs if anew else self.spoilt() if self.finished else filter(is_empty, self.outputs):
                path.unlink(missing_ok=True)
        if anew:
            self.remove_checkpoints()
        remove_parts([*self.outputs, self.record])
        for part in self.checkpoints.rglob(f"{PART}*") if self.checkpoints else ():
            part.unlink(missing_ok=True)
        kept = self.config.run_dir / "config.json"
        if not kept.exists():
            write_settings(self.config, kept, PER_CALL_SETTINGS)
        self.write(dict.fromkeys(map(self.records.key, self.outputs)))

    def finish(self):
        """Note that all files are made, and remove the checkpoints that led to them.

        Raises:
            InputError: if what they were made from changed meanwhile.
        """
        for group, paths in self.paths.items():
            now = hashes(self.records.stamps(paths))
            for key, content in hashes(self.inputs[group]).items():
                if now.get(key) != content:
                    raise InputError(f"{key} changed while {self.name} was made from it: run the same command again")
        self.write(self.records.stamps(self.outputs))
        self.remove_checkpoints()
        self.lock.release()

    def remove_checkpoints(self):
        """Remove what a training has left there, and nothing else: a link may lead to somebody's other checkpoints."""
        for folder in (self.checkpoints / "head", self.checkpoints) if self.checkpoints else ():
            for path in (path for pattern in CHECKPOINTS for path in folder.glob(pattern)):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()

    def write(self, outputs):
        record = {"kind": self.kind, "script": self.script, "kept": self.checkpoints is not None}
        record |= {"settings": self.settings, "inputs": self.inputs, "outputs": outputs, "code": code(self.script)}
        with whole_file(self.record) as part:
            part.write_text(json.dumps(record) + "\n", encoding="utf-8")


def read_record(path):
    """Read a record; None if it is damaged, of an older version, or names a file by a way out of its folder."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        groups = [record["outputs"], *record["inputs"].values()]
        for name, stamp in (item for group in groups for item in group.items()):
            if Path(name).is_absolute() or ".." in Path(name).parts or not (stamp is None or len(stamp) == 3):
                return None
        record["settings"] = with_present_names(record["settings"])
        sound = record["code"].keys() and isinstance(record["kept"], bool)
        return record if sound and isinstance(record["script"], str) and isinstance(record["kind"], str) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def differ(setting, value, other):
    """Whether two values of a setting differ. Precision "auto" fits any: a checkpoint holds what it was."""
    return value != other and not (setting == "mixed_precision" and "auto" in (value, other))


def hashes(stamps):
    """Dictionary from what files go by to their hash alone."""
    return {key: stamp[2] for key, stamp in stamps.items()}


def is_empty(path):
    """Whether a file holds nothing, as a power cut leaves it."""
    return path.is_file() and not path.stat().st_size


def code(script):
    """Dictionary from the source files in use to what they hold; see `source`.

    A change of the code is only said: remade masks can differ in a pixel, and with them all that follows.
    """
    loaded = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    folders = [REPOSITORY / package for package in PACKAGES]
    files = [*sorted(file for file in loaded if file.parent in folders), REPOSITORY / script.split()[0]]
    return {file.relative_to(REPOSITORY).as_posix(): source(file) for file in files}


def source(path):
    """Hash of a source file without its comments and docstrings; empty if it is not there."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return hashlib.blake2b(ast.unparse(tree).encode(), digest_size=16).hexdigest()
