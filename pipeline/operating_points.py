"""The operating points that a run keeps."""

from evaluation.operating_points import OperatingPoint
from pipeline.inputs import read_json
from utils.errors import InputError


def read_operating_points(run, method):
    """Read the operating points of a method.

    Args:
        run: a `pipeline.paths.RunFolder`.
        method: name of the method, for example "vote".

    Returns:
        Dictionary from sensitivity to `OperatingPoint`. It is empty if there was no image to choose thresholds on, and
        None if the run keeps no operating points of the method.

    Raises:
        InputError: if the file is damaged.
    """
    file = run.operating_points
    kept = read_json(file, "vote.py").get(method) if file.exists() else None
    if kept is None:
        return None
    try:
        return {
            point["sensitivity"]: OperatingPoint(kept["class"], point["sensitivity"], point["threshold"], kept["split"])
            for point in kept["points"]
        }
    except (KeyError, TypeError):
        raise InputError(f"{file} is damaged: remove it and run `python vote.py` again") from None
