"""Record the settings and inputs of every output, so that a stage can skip work that is up to date and refuse outdated
inputs.

Every output of a stage has a manifest, see `pipeline.manifest_files`. Only the content of a file counts. A file with
the recorded size and time is not read again. Paths are relative to the run folder or the data folder, so a run that was
copied or moved is still up to date.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from config import Config
from pipeline.manifest_files import digest_of, hash_of, write_manifest
from pipeline.paths import CHECKPOINT_EPOCH, CHECKPOINT_HISTORY, HEAD_CHECKPOINTS, RunFolder
from pipeline.settings import DEFAULTS, PER_CALL_SETTINGS, affects, as_json, as_option_text, write_settings
from pipeline.upstream import RunRecords, differ, key_of
from utils.errors import InputError
from utils.files import TEMPORARY, lock, remove_parts


@dataclass(eq=False)
class Manifest:
    """An output of a stage: some files, and what they are made from.

    A stage calls `up_to_date`, and unless it returns True `begin`, makes the files, and calls `finish`.
    """

    config: Config
    name: str
    """Name of the output, for example "masks_validation"."""
    kind: str
    """Kind of output, a key of `SETTINGS_BY_OUTPUT`."""
    script: str
    """The command that makes it, for messages. `utils.errors` adds the other options of the call to it."""
    inputs: dict
    """From the name of a group of inputs to their files, or to a dictionary from image id to file."""
    outputs: list
    """The files that are made. Of a training, the network is the last."""
    checkpoints: Path | None = None
    """Folder of an unfinished training. Training takes hours, so a trained or partly trained network is replaced only
    with `config.overwrite`."""
    one_by_one: bool = False
    """After an interruption, the stage makes only the files that are missing."""
    obsolete: set = frozenset()
    """Files that the stage makes with other settings. They are removed when the output is made."""
    wait: float = 0
    """Seconds to wait for another process that makes the same output, instead of refusing."""
    must_match: tuple = ()
    """See `RunRecords.check`."""
    ignored: tuple = ()
    """Settings that have no effect this time."""

    def __post_init__(self):
        self.ids = {group: list(paths) for group, paths in self.inputs.items() if isinstance(paths, dict)}
        self.inputs = {
            group: list(paths.values() if group in self.ids else paths) for group, paths in self.inputs.items()
        }
        self.outputs = list(self.outputs)
        self.file = RunFolder(self.config.run_dir).manifests / f"{self.name}.jsonl"
        self.settings = {
            setting: value
            for setting, value in as_json(self.config).items()
            if affects(setting, self.kind) and setting not in self.ignored
        }

    def up_to_date(self):
        """Whether nothing changed since the output was made. Prints the answer.

        If something changed, the output is locked until `finish`, or until the process ends.

        Raises:
            InputError: if another process makes the same output, if an input is outdated (see `RunRecords.check`), or
                if a finished or unfinished training would be lost.
        """
        self.lock = lock(self.file.with_suffix(".lock"), self.wait)
        if self.lock is None:
            raise InputError(f"another process is making {self.name} in {self.config.run_dir}: wait for its end")
        records = RunRecords(self.config)
        self.record = self.describe(records)
        self.before = records.records.get(self.name)
        self.changes = self.changes_since(records) if self.before else {}
        finished = self.before and self.before["finished"] and not self.config.overwrite
        self.modified = self.modified_outputs(records) if finished and not self.changes else []
        current = finished and not self.changes and not self.modified
        if current and self.before["upstream"] != self.record["upstream"]:
            # An earlier stage made other files beside those used here.
            new = self.before | {"upstream": self.record["upstream"]}
            write_manifest(self.file, new, records.outputs(self.name))
        records.save_hashes()
        if current:
            print(f"{self.name}: nothing changed since it was made")
            self.remove_checkpoints()
            self.lock.release()
            return True
        self.refuse_overwrite(records)
        self.print_reason()
        return False

    def describe(self, records):
        """The record of the output, if it is made now.

        Raises:
            InputError: if an input is outdated, see `RunRecords.check`.
        """
        sources = records.check((path for paths in self.inputs.values() for path in paths), self.must_match)
        return {
            "kind": self.kind,
            "script": self.script,
            "settings": self.settings,
            "kept": self.checkpoints is not None,
            "many": self.one_by_one,
            "inputs": {group: digest_of(self.stamps_of(group, records)) for group in self.inputs},
            "paired": list(self.ids),
            "upstream": {source: records.records[source]["digest"] for source in sources},
            "upstream_settings": {source: records.records[source]["settings"] for source in sources},
        }

    def stamps_of(self, group, records):
        """Yield the key and the stamp of each file of a group. The key holds the image id if the file's name does not.

        So it is a change if two images of `dataset.csv` exchange their masks.
        """
        stamps = records.stamps(self.inputs[group])
        if group not in self.ids:
            yield from stamps
            return
        for image_id, path, (key, stamp) in zip(self.ids[group], self.inputs[group], stamps, strict=True):
            named = path.stem == image_id or path.stem.startswith(f"{image_id}_")
            yield (key if named else f"{image_id} {key}"), stamp

    def print_reason(self):
        """Print why the output is made, if some of it exists."""
        if self.config.overwrite:
            print(f"{self.name}: making it again")
        elif self.changes:
            print(f"{self.name}: {', '.join(self.changes)} changed, making it again")
        elif self.modified:
            print(f"{self.name}: {len(self.modified)} files are missing or changed, making them again")
        elif self.before:
            print(f"{self.name}: going on")
        elif any(path.exists() for path in self.outputs):
            print(f"{self.name}: no record of how the existing files were made: making them again")

    def refuse_overwrite(self, records):
        """Refuse to replace a trained or partly trained network without `--overwrite`.

        Raises:
            InputError: naming what changed, and the option that replaces the network.
        """
        going_on = self.before and not self.changes and not self.modified
        if self.checkpoints is None or going_on or self.config.overwrite:
            return
        trained = [path for path in self.outputs if path.suffix == ".keras" and path.exists()]
        trained += [path for path in [self.checkpoints] if path.is_dir() and any(path.iterdir())]
        if not trained:
            return
        if not self.before:
            reason = f"there is no record of how {trained[0]} was made"
        elif self.modified:
            reason = f"{self.modified[0]} is missing or was changed after training"
        else:
            changes = [*self.changes.values(), *records.upstream_changes(self.before, self.record["upstream"])]
            reason = f"{trained[0]} was made with {', '.join(changes)}"
        raise InputError(
            f"{reason}: run `python {self.script} --overwrite` to make it again, or choose another --run-dir"
        )

    def changes_since(self, records):
        """Dictionary from each setting, or group of inputs, that changed to a description of the change."""
        if self.before["kind"] != self.kind:  # a U-Net that was trained here, or copied with --unet
            return {"script": f"{self.before['script']}, not {self.script}"}
        defaults, changes = as_json(DEFAULTS), {}
        for setting, value in self.settings.items():
            former = self.before["settings"].get(setting, defaults[setting])
            if differ(setting, former, value):
                changes[setting] = f"{setting} = {as_option_text(former)}, not {as_option_text(value)}"
        before, now, nothing = self.before["inputs"], self.record["inputs"], digest_of([])
        others = [group for group in before | now if before.get(group, nothing) != now.get(group, nothing)]
        if "weight files" in others and now.get("weight files", nothing) == nothing:
            others.remove("weight files")  # a folder that is gone, or of another machine, is no change
        if "paired" not in self.before:  # an older manifest, which does not know which image a mask belongs to
            unpaired = {group: digest_of(records.stamps(self.inputs[group])) for group in self.ids}
            others = [group for group in others if group not in unpaired or before.get(group) != unpaired[group]]
        return changes | {group: f"other {group}" for group in others}

    def modified_outputs(self, records):
        """The outputs that are missing, or whose content changed since they were made."""
        recorded, stamps = records.outputs(self.name), records.stamps(self.outputs)
        return [
            path
            for path, (key, stamp) in zip(self.outputs, stamps, strict=True)
            if stamp is None or hash_of(stamp) != hash_of(recorded.get(key))
        ]

    def begin(self):
        """Record that the output is being made. Call this after everything that can fail early.

        Existing files stay until they are replaced. But a stage with `one_by_one` would take existing files for
        finished, so those that it has to make again are removed.
        """
        restart = not self.before or self.changes or self.config.overwrite
        if self.one_by_one:
            for path in (self.outputs if restart else self.modified) or filter(is_empty, self.outputs):
                path.unlink(missing_ok=True)
        for path in set(self.obsolete).difference(self.outputs):
            path.unlink(missing_ok=True)
        if restart:
            self.remove_checkpoints()
        remove_parts([*self.outputs, self.file])
        for part in self.checkpoints.rglob(f"{TEMPORARY}*") if self.checkpoints else ():
            part.unlink(missing_ok=True)
        settings_file = RunFolder(self.config.run_dir).settings
        if not settings_file.exists():
            write_settings(self.config, settings_file, PER_CALL_SETTINGS)
        write_manifest(self.file, self.record, {key_of(path, self.config): None for path in self.outputs})

    def finish(self):
        """Record that the output is finished, and remove the checkpoints.

        Raises:
            InputError: if an input changed since `begin`.
        """
        records = RunRecords(self.config)  # not kept while the stage works, as it takes memory for every file
        for group, paths in self.inputs.items():
            if digest_of(self.stamps_of(group, records)) != self.record["inputs"][group]:
                again = f"run `python {self.script} --overwrite`" if self.checkpoints else "run the same command again"
                raise InputError(f"{group} in {paths[0].parent} changed while {self.name} was made from them: {again}")
        write_manifest(self.file, self.record, dict(records.stamps(self.outputs)))
        self.remove_checkpoints()
        self.lock.release()

    def remove_checkpoints(self):
        """Remove the files of the checkpoints and no others, because the folder may be a link to other files."""
        patterns = (CHECKPOINT_EPOCH.format("*"), CHECKPOINT_HISTORY, f"{TEMPORARY}*")
        for folder in (self.checkpoints / HEAD_CHECKPOINTS, self.checkpoints) if self.checkpoints else ():
            for path in (path for pattern in patterns for path in folder.glob(pattern)):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


def is_empty(path):
    """Whether a file is empty, as after a power cut."""
    return path.is_file() and not path.stat().st_size
