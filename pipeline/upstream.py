"""The manifests of a run folder: which one a file belongs to, and whether everything upstream of it is unchanged.

A stage checks its own inputs file by file. Further upstream, only the digests in the manifests are compared.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipeline.manifest_files import (
    HASHES,
    hash_of,
    is_description,
    is_network,
    list_manifests,
    one_file_per_image,
    read_record,
    read_stamps,
    write_manifest,
)
from pipeline.paths import RunFolder
from pipeline.settings import DEFAULTS, as_json, as_option_text
from utils.errors import InputError

CHUNK = 64  # files that are checked together


class RunRecords:
    """What the manifests of a run folder hold.

    Args:
        config: the settings.

    Attributes:
        records: dictionary from the name of each manifest to its record, see `pipeline.manifest_files`.
        reached: names of the manifests that `check` looked at.
    """

    def __init__(self, config):
        self.config, self.folder = config, RunFolder(config.run_dir).manifests
        records = {path.stem: read_record(path) for path in list_manifests(self.folder)}
        self.records, self.reached = {name: record for name, record in records.items() if record}, []
        self.outputs_of, self.hashes, self.new_hashes = {}, read_stamps(self.folder / HASHES), False

    def outputs(self, name):
        """Dictionary from the key of each file of a manifest to its stamp, or to None if the file is not finished."""
        if name not in self.outputs_of:
            self.outputs_of[name] = read_stamps(self.folder / f"{name}.jsonl", skip=1)
        return self.outputs_of[name]

    def manifest_of(self, path):
        """Name of the manifest that a file belongs to; None if there is none."""
        if not path.is_relative_to(self.config.run_dir):  # a file of the data set may have the same key
            return None
        key = key_of(path, self.config)
        folder = key.rpartition("/")[0]
        candidates = (name for name, record in self.records.items() if folder in record["folders"])
        return next((name for name in candidates if key in self.outputs(name)), None)

    def stamp(self, path):
        """Size, time in nanoseconds and hash of a file, as text; None if there is no file."""
        if not path.is_file():
            return None
        key, status = key_of(path, self.config), path.stat()
        size_and_time = f"{status.st_size} {status.st_mtime_ns} "
        name = self.manifest_of(path)
        for stamp in (self.outputs(name)[key] if name else None, self.hashes.get(key)):
            if stamp and stamp.startswith(size_and_time):
                return stamp
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16))
        stamp = size_and_time + digest.hexdigest()
        self.hashes[key], self.new_hashes = stamp, True
        return stamp

    def stamps(self, paths):
        """Yield the key and the stamp of each file; the stamp of a missing file is None."""
        with ThreadPoolExecutor(self.config.workers) as pool:
            for start in range(0, len(paths), CHUNK):  # in chunks, because each task in the pool takes 1 kB of memory
                chunk = paths[start : start + CHUNK]
                yield from zip((key_of(path, self.config) for path in chunk), pool.map(self.stamp, chunk), strict=True)

    def save_hashes(self):
        """Save the hashes of files that no stage made."""
        if self.new_hashes:
            write_manifest(self.folder / HASHES, None, dict(sorted(self.hashes.items())))

    def check(self, paths, must_match=(), kinds=None):
        """Check that these files and everything upstream of them are unchanged since they were made.

        Args:
            paths: files of the run folder. A file without a manifest was put there by hand and is accepted.
            must_match: names of settings that must have their present values in all manifests upstream.
            kinds: the kinds of output (keys of `SETTINGS_BY_OUTPUT`) to which `must_match` applies; None for all.

        Returns:
            List of the names of the manifests that the files belong to.

        Raises:
            InputError: naming the first file that was changed, that was made from outdated files or with settings that
                contradict others, and the script that makes it.
        """
        direct = {}
        for path in paths:
            key = key_of(path, self.config)
            if name := self.manifest_of(path):
                direct[name] = None
                self.check_upstream(name)
                self.check_file(name, key)
        self.check_settings(must_match, kinds)
        return list(direct)

    def check_upstream(self, name):
        """Check that an output was made from the present outputs of earlier stages. Check these in the same way."""
        if name in self.reached:
            return
        self.reached.append(name)
        record = self.records[name]
        for source, digest in record["upstream"].items():
            if source not in self.records:  # the manifest was removed
                continue
            self.check_upstream(source)
            for key in self.files_to_check(source):
                self.check_file(source, key)
            made_from = self.records[source]
            if made_from["digest"] != digest:
                self.check_file(source, made_from["file"])  # it may not be finished
                many, file = one_file_per_image(made_from), made_from["file"]
                older = f"older files in {file.rpartition('/')[0]}" if many else f"an older {file}"
                changed = "".join(f", with {change}" for change in self.upstream_changes(record, [source]))
                keep = f", or make {source} again with its former settings" if is_network(record) else ""
                raise InputError(
                    f"{self.config.run_dir / record['file']} was made from {older}{changed}: {remedy(record)}{keep}"
                )

    def files_to_check(self, name):
        """The files of an output to check when it is upstream.

        For a network only its file; none if there is a file for each image, because these are too many; otherwise all
        files except descriptions.
        """
        record = self.records[name]
        if one_file_per_image(record):
            return []
        return [record["file"]] if is_network(record) else [k for k in self.outputs(name) if not is_description(k)]

    def check_file(self, name, key):
        """Check that a file is finished and unchanged, if it is there."""
        record, path, recorded = self.records[name], self.config.run_dir / key, self.outputs(name).get(key)
        if recorded is None:
            raise InputError(f"{path} is not finished, or is being made: run `python {record['script']}`")
        present = self.stamp(path)
        if present and hash_of(present) != hash_of(recorded):
            raise InputError(f"{path} was changed after it was made: {remedy(record)}")

    def upstream_changes(self, record, sources):
        """List the settings upstream of an output that have changed since it was made, as distinct texts.

        Args:
            record: record of the output.
            sources: names of the manifests of the files that it was made from.
        """
        texts = {}
        for source in sources:
            former = record["upstream_settings"].get(source, {})
            for setting, value in self.records[source]["settings"].items():
                if setting in former and differ(setting, former[setting], value):
                    texts[f"{setting} = {as_option_text(former[setting])}, not {as_option_text(value)}"] = None
        return list(texts)

    def check_settings(self, must_match, kinds):
        """Check that all manifests that were reached agree in their settings, and match `must_match`."""
        present, defaults, first_of_kind = as_json(self.config), as_json(DEFAULTS), {}
        for name in self.reached:
            record = self.records[name]
            made, command = f"{name} of {self.config.run_dir} was made with", f"run `python {record['script']}`"
            first = first_of_kind.setdefault((record["kind"], record["settings"].get("backbone_name")), name)
            if ("extra crops" in record["inputs"]) != ("extra crops" in self.records[first]["inputs"]):
                raise InputError(
                    f"one of {name} and {first} of {self.config.run_dir} was made with --extra-data-dir, one without: "
                    f"{remedy(record)} to make {name} like {first}"
                )
            for setting, value in record["settings"].items():
                other = self.records[first]["settings"].get(setting, defaults.get(setting))
                shown = as_option_text(value)
                if differ(setting, value, other):
                    raise InputError(
                        f"{made} {setting} = {shown}, {first} with {as_option_text(other)}: {command} for both with "
                        f"the same settings"
                    )
                required = setting in must_match and (kinds is None or record["kind"] in kinds)
                if required and differ(setting, value, present[setting]):
                    raise InputError(
                        f"{setting} = {as_option_text(present[setting])}, but {made} {shown}: give the settings that "
                        f"made the run, or {command}"
                    )

    def made_with(self, setting, kind, backbone_name=None):
        """A setting of the outputs of a kind that `check` looked at; the present setting if there are none."""
        for record in map(self.records.get, self.reached):
            if (record["kind"], record["settings"].get("backbone_name")) == (kind, backbone_name):
                return record["settings"].get(setting, getattr(DEFAULTS, setting))
        return getattr(self.config, setting)


def key_of(path, config):
    """Path of a file relative to the run folder or the data folder; for any other file, its name."""
    for folder in (config.run_dir, config.data_dir):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def remedy(record):
    """The command that makes an output again, for a message."""
    return f"run `python {record['script']}{' --overwrite' if is_network(record) else ''}`"


def differ(setting, value, other):
    """Whether two values of a setting differ.

    The precision "auto" is equal to any other. It depends on the machine, which makes no network outdated.
    (An unfinished training must go on in its precision; `pipeline.fitting.Checkpoints` checks this.)
    """
    return value != other and not (setting == "mixed_precision" and "auto" in (value, other))
