"""What the files of a run folder were made from, so that nothing is made twice and old and new never mix."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from data.files import whole_file


class Made:
    """Files that a stage makes, and what they are made from.

    What they were made from the last time stands in `<run-dir>/made/<name>.json`, so that a stage makes nothing twice,
    goes on where it was interrupted, and never mixes old and new.

    Args:
        config: the settings.
        name: what is made, for example "masks_validation".
        settings: beginnings of the names of the settings that count.
        inputs: dictionary from what they are to the files that count.
        outputs: files that are made.
        checkpoints: folder of an unfinished training, or None.
    """

    def __init__(self, config, name, settings, inputs, outputs, checkpoints=None):
        self.run_dir, self.name, self.outputs, self.checkpoints = config.run_dir, name, list(outputs), checkpoints
        self.record = config.run_dir / "made" / f"{name}.json"
        self.now = {key: str(value) for key, value in asdict(config).items() if key.startswith(tuple(settings))}
        self.now |= {key: fingerprint(paths) for key, paths in inputs.items()}
        before = json.loads(self.record.read_text()) if self.record.exists() else {}
        self.before, self.stamps = before.get("from", {}), before.get("finished")

    def up_to_date(self):
        """Whether nothing changed and all files stand as they were made; says so, or says what changed."""
        if self.before == self.now:
            if self.stamps is None:
                print(f"{self.name}: going on")
            elif spoilt := self.spoilt():
                print(f"{self.name}: {len(spoilt)} files are missing or changed, making them again")
            else:
                print(f"{self.name}: nothing changed since it was made")
                self.remove_checkpoints()
                return True
        elif self.before:
            changed = sorted(key for key in {*self.before, *self.now} if self.before.get(key) != self.now.get(key))
            print(f"{self.name}: {', '.join(changed)} changed, making it again")
        elif any(path.exists() for path in self.outputs):
            print(f"{self.name}: nothing tells what the files that stand were made from, making them again")
        return False

    def begin(self):
        """Remove what is not good to keep; to be called once all that can fail early has not."""
        if self.before != self.now:
            former = [self.run_dir / name for name in self.stamps or ()]  # what is no longer made must not stay either
            for path in {*self.outputs, *former}:
                path.unlink(missing_ok=True)
            self.remove_checkpoints()
        elif self.stamps is not None:
            for path in self.spoilt():
                path.unlink(missing_ok=True)
        self.write(finished=None)

    def finish(self):
        """Note that all files are made, and remove the checkpoints that led to them."""
        self.write(finished=self.stamps_now())
        self.remove_checkpoints()

    def spoilt(self):
        """The outputs that no longer are what they were when they were made."""
        now = self.stamps_now()
        return [
            path
            for path, (key, stamp) in zip(self.outputs, now.items(), strict=True)
            if self.stamps.get(key) != stamp or not path.exists()
        ]

    def stamps_now(self):
        """Fingerprint of each output, by its path within the run folder."""
        return {str(path.relative_to(self.run_dir)): fingerprint([path]) for path in self.outputs}

    def remove_checkpoints(self):
        if self.checkpoints is not None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def write(self, finished):
        with whole_file(self.record) as part:
            part.write_text(json.dumps({"from": self.now, "finished": finished}, indent=2) + "\n")


def fingerprint(paths):
    """Short text that changes with the name, size or time of any of the files; none of them is read."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in map(Path, paths) if path.exists()]
    return hashlib.sha1(repr(stats).encode()).hexdigest()
