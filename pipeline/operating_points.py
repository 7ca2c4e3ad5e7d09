"""Read the operating points of a run."""

from evaluation.operating_points import OperatingPoint
from pipeline.inputs import read_json
from utils.errors import InputError


def read_operating_points(run, method):
    """Read the operating points of a method.

    Args:
        run: a `pipeline.paths.RunFolder`.
        method: name of the method, for example "vote".

    Returns:
        Dictionary from sensitivity to `OperatingPoint`. It is empty if the run has none of the method, or if there was
        no image to choose thresholds on.

    Raises:
        InputError: if the file is damaged.
    """
    file = run.operating_points
    saved = read_json(file, "vote.py").get(method) if file.exists() else None
    if saved is None:
        return {}
    try:
        return {
            point["sensitivity"]: OperatingPoint(
                saved["class"], point["sensitivity"], point["threshold"], saved["split"]
            )
            for point in saved["points"]
        }
    except (KeyError, TypeError):
        raise InputError(f"{file} is damaged: remove it and run `python vote.py` again") from None
