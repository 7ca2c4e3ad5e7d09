"""The manifests of a run folder: which one a file belongs to, and whether everything upstream of it is unchanged.

A stage checks its own inputs file by file. Of what these were made from, the digests in the manifests are compared.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from config import PRESETS
from pipeline.manifest_files import (
    content,
    is_description,
    read_former_manifests,
    read_head,
    read_stamps,
    write_manifest,
)
from pipeline.paths import RunFolder
from pipeline.settings import as_json, as_typed
from utils.errors import InputError

CHUNK = 64  # files looked at together


class Manifests:
    """The manifests of a run folder.

    Args:
        config: the settings.

    Attributes:
        heads: dictionary from the name of each manifest to its head.
        reached: names of the manifests that `check` looked at.
    """

    def __init__(self, config):
        self.config, self.folder = config, RunFolder(config.run_dir).manifests
        heads = {path.stem: read_head(path) for path in sorted(self.folder.glob("[!.]*.jsonl"))}
        self.heads, self.reached = {name: head for name, head in heads.items() if head}, []
        former = read_former_manifests(config.run_dir, self.heads)
        self.heads |= {name: head for name, (head, _) in former.items()}
        self.outputs_of = {name: stamps for name, (_, stamps) in former.items()}
        self.hashes, self.new_hashes = read_stamps(self.folder / "hashes.jsonl"), False

    def outputs(self, name):
        """Dictionary from the key of each file of a manifest to its stamp, or to None if the file is not finished."""
        if name not in self.outputs_of:
            self.outputs_of[name] = read_stamps(self.folder / f"{name}.jsonl", skip=1)
        return self.outputs_of[name]

    def maker(self, key):
        """Name of the manifest that a file belongs to; None if there is none."""
        folder = key.rpartition("/")[0]
        names = (name for name, head in self.heads.items() if folder in head["folders"] and key in self.outputs(name))
        return next(names, None)

    def stamp(self, path):
        """Size, time in nanoseconds and hash of a file, as text; None if there is no file."""
        if not path.is_file():
            return None
        key, status = key_of(path, self.config), path.stat()
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

    def stamps(self, paths):
        """Yield the key and the stamp of each file; the stamp of a missing file is None."""
        with ThreadPoolExecutor(self.config.workers) as pool:
            for start in range(0, len(paths), CHUNK):  # a task in the pool takes 1 kB
                chunk = paths[start : start + CHUNK]
                yield from zip((key_of(path, self.config) for path in chunk), pool.map(self.stamp, chunk), strict=True)

    def save_hashes(self):
        """Save the hashes of files that no stage made."""
        if self.new_hashes:
            write_manifest(self.folder / "hashes.jsonl", None, dict(sorted(self.hashes.items())))

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
            key = key_of(path, self.config)
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
            made_of = self.heads[source]
            if made_of["digest"] != digest:
                self.check_file(source, made_of["file"])  # it may not be finished
                former = f", or make {source} again as it was" if head["kept"] else ""
                changed = "".join(f", with {change}" for change in self.upstream_changes(head, [source]))
                raise InputError(
                    f"{self.config.run_dir / head['file']} was made from an earlier {source} ({made_of['file']})"
                    f"{changed}: {again(head)}{former}"
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

    def upstream_changes(self, head, sources):
        """Which settings of the files that an output was made from have changed since, as texts without repetition.

        Args:
            head: head of the manifest of the output. One of an older version does not hold these settings.
            sources: names of the manifests of the files that it was made from.
        """
        texts = {}
        for source in sources:
            former = head.get("upstream_settings", {}).get(source, {})
            for setting, value in self.heads[source]["settings"].items():
                if setting in former and differ(setting, former[setting], value):
                    texts[f"{setting} = {as_typed(former[setting])}, not {as_typed(value)}"] = None
        return list(texts)

    def check_settings(self, must_match, kinds):
        """Check that the manifests looked at agree in their settings, and with those of today that must match."""
        present, published, first_of_kind = as_json(self.config), as_json(PRESETS["isic2017"]), {}
        for name in self.reached:
            head = self.heads[name]
            made, remedy = f"{name} of {self.config.run_dir} was made with", f"run `python {head['script']}`"
            first = first_of_kind.setdefault((head["kind"], head["settings"].get("backbone_name")), name)
            for setting, value in head["settings"].items():
                other = self.heads[first]["settings"].get(setting, published.get(setting))
                if differ(setting, value, other):
                    raise InputError(
                        f"{made} {setting} = {as_typed(value)}, {first} with {as_typed(other)}: {remedy} for both with "
                        f"the same settings"
                    )
                matches = setting not in must_match or (kinds is not None and head["kind"] not in kinds)
                if not matches and differ(setting, value, present[setting]):
                    raise InputError(
                        f"{setting} = {as_typed(present[setting])}, but {made} {as_typed(value)}: give the settings "
                        f"that made the run, or {remedy}"
                    )

    def made_with(self, setting, kind, backbone_name=None):
        """A setting of the outputs of a kind that `check` looked at; the setting of today if there are none."""
        for head in map(self.heads.get, self.reached):
            if (head["kind"], head["settings"].get("backbone_name")) == (kind, backbone_name):
                return head["settings"].get(setting, getattr(PRESETS["isic2017"], setting))
        return getattr(self.config, setting)


def key_of(path, config):
    """Path of a file within the run folder or the data folder; the name of a file that is elsewhere."""
    for folder in (config.run_dir, config.data_dir):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def again(head):
    """The command that makes an output again, for a message."""
    return f"run `python {head['script']}{' --overwrite' if head['kept'] else ''}`"


def differ(setting, value, other):
    """Whether two values of a setting differ. The precision "auto" is equal to any, as the checkpoint holds it."""
    return value != other and not (setting == "mixed_precision" and "auto" in (value, other))
