"""Record the settings and inputs of every output, so that a stage can skip work that is up to date and refuse outdated
inputs.

Every output of a stage has a manifest, `<run-dir>/manifests/<name>.jsonl` (see `pipeline.manifest_files`). It holds the
settings that affect the output, a digest of each group of inputs, the digests of the manifests that the inputs belong
to, and the path, size, time and hash of each file of the output. `hashes.jsonl` holds the same of files that no stage
made, so that no file is hashed twice.

Only the content of a file counts. A file with the recorded size and time is not read again. Paths are relative to the
run folder or the data folder, so a run that was copied or moved is still up to date.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from config import PRESETS, Config
from pipeline.manifest_files import content, digest_of, write_manifest
from pipeline.paths import RunFolder
from pipeline.settings import PER_CALL_SETTINGS, affects, as_json, as_typed, write_settings
from pipeline.upstream import Manifests, differ, key_of
from utils.errors import InputError
from utils.files import TEMPORARY, lock, remove_parts

CHECKPOINTS = ("epoch_*.npz", "history.csv", f"{TEMPORARY}*")  # the files that `pipeline.fitting.Checkpoints` writes


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
    """The command that makes it, for messages."""
    inputs: dict
    """From the name of a group of inputs to their files."""
    outputs: list
    """The files that are made; of a network the last one."""
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
    """See `Manifests.check`."""
    ignored: tuple = ()
    """Settings that have no effect this time."""

    def __post_init__(self):
        self.inputs = {group: list(paths) for group, paths in self.inputs.items()}
        self.outputs = list(self.outputs)
        self.file = RunFolder(self.config.run_dir).manifests / f"{self.name}.jsonl"
        self.settings = {
            setting: value
            for setting, value in as_json(self.config).items()
            if affects(setting, self.kind) and setting not in self.ignored
        }

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
        manifests = Manifests(self.config)
        sources = manifests.check((path for paths in self.inputs.values() for path in paths), self.must_match)
        self.head = {"kind": self.kind, "script": self.script, "settings": self.settings}
        self.head |= {"kept": self.checkpoints is not None, "many": self.one_by_one}
        self.head["inputs"] = {group: digest_of(manifests.stamps(paths)) for group, paths in self.inputs.items()}
        self.head["upstream"] = {source: manifests.heads[source]["digest"] for source in sources}
        self.head["upstream_settings"] = {source: manifests.heads[source]["settings"] for source in sources}
        self.before = manifests.heads.get(self.name)
        self.changes = self.changes_since() if self.before else {}
        finished = self.before and self.before["finished"] and not self.config.overwrite
        self.modified = self.modified_outputs(manifests) if finished and not self.changes else []
        current = finished and not self.changes and not self.modified
        if current and self.before["upstream"] != self.head["upstream"]:
            # An earlier stage made other files beside those used here.
            head = self.before | {"upstream": self.head["upstream"]}
            write_manifest(self.file, head, manifests.outputs(self.name))
        manifests.save_hashes()
        if current:
            print(f"{self.name}: nothing changed since it was made")
            self.remove_checkpoints()
            self.lock.release()
            return True
        self.refuse_overwrite(manifests)
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
        return False

    def refuse_overwrite(self, manifests):
        """Refuse to replace a trained or partly trained network, unless that is wanted.

        Raises:
            InputError: naming what changed, and the option that replaces the network all the same.
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
            changes = [*self.changes.values(), *manifests.upstream_changes(self.before, self.head["upstream"])]
            reason = f"{trained[0]} was made with {', '.join(changes)}"
        raise InputError(
            f"{reason}: run `python {self.script} --overwrite` to train again, or choose another --run-dir"
        )

    def changes_since(self):
        """Dictionary from each setting, or group of inputs, that changed to a description of the change."""
        published, changes = as_json(PRESETS["isic2017"]), {}
        for setting, value in self.settings.items():
            former = self.before["settings"].get(setting, published[setting])
            if differ(setting, former, value):
                changes[setting] = f"{setting} = {as_typed(former)}, not {as_typed(value)}"
        before, now, nothing = self.before["inputs"], self.head["inputs"], digest_of([])
        others = [group for group in before | now if before.get(group, nothing) != now.get(group, nothing)]
        return changes | {group: f"other {group}" for group in others}

    def modified_outputs(self, manifests):
        """The outputs that are missing, or whose content changed since they were made."""
        recorded, stamps = manifests.outputs(self.name), manifests.stamps(self.outputs)
        return [
            path
            for path, (key, stamp) in zip(self.outputs, stamps, strict=True)
            if stamp is None or content(stamp) != content(recorded.get(key))
        ]

    def begin(self):
        """Record that the output is being made. To be called when everything is ready that can fail early.

        Existing files stay until they are replaced. Only those go that a stage making one file after another would take
        for finished.
        """
        anew = not self.before or self.changes or self.config.overwrite
        if self.one_by_one:
            for path in (self.outputs if anew else self.modified) or filter(is_empty, self.outputs):
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
        write_manifest(self.file, self.head, {key_of(path, self.config): None for path in self.outputs})

    def finish(self):
        """Record that the output is made, and remove the checkpoints.

        Raises:
            InputError: if an input changed meanwhile.
        """
        manifests = Manifests(self.config)  # which takes memory for every file, so it is not kept while a stage works
        for group, paths in self.inputs.items():
            if digest_of(manifests.stamps(paths)) != self.head["inputs"][group]:
                raise InputError(
                    f"{group} in {paths[0].parent} changed while {self.name} was made from them: "
                    f"run the same command again"
                )
        write_manifest(self.file, self.head, dict(manifests.stamps(self.outputs)))
        self.remove_checkpoints()
        self.lock.release()

    def remove_checkpoints(self):
        """Remove the files of the checkpoints, and no other: the folder may be a link to somebody's files."""
        for folder in (self.checkpoints / "head", self.checkpoints) if self.checkpoints else ():
            for path in (path for pattern in CHECKPOINTS for path in folder.glob(pattern)):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


def is_empty(path):
    """Whether a file is empty, as after a power cut."""
    return path.is_file() and not path.stat().st_size
