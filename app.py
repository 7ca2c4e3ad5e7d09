"""A page to try trained networks in a browser. This is research software: it is no medical device, and its output is no
diagnosis.

    pip install -r requirements-app.txt
    python app.py                                   # the networks in models/trained; opens http://127.0.0.1:7860
    python app.py --run-dir runs/fine_tuned         # those of a finished run

Drop an image: the page shows its mask, crop, probabilities, operating point and Grad-CAM. The page is served to this
machine alone, unless --host names another address. Uploaded images are removed after ten minutes, and at the end.

Reads   <run-dir>    as predict.py
"""

from dataclasses import dataclass
from typing import Annotated

from config import Config
from pipeline import command_line
from pipeline.paths import default_run


@dataclass(frozen=True)
class Settings(Config):
    """The settings of all stages, and where the page is served."""

    host: str = "127.0.0.1"
    """Address to serve the page at; 0.0.0.0 serves it to every machine that reaches this one."""
    port: Annotated[int, ">= 1", "<= 65535"] = 7860
    """Port of the page."""
    browser: bool = True
    """Open the page in a browser."""


if __name__ == "__main__":
    config = command_line.start(__doc__, Settings, default_run())

import os
import signal
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from data.classes import positive_class
from evaluation.operating_points import SUSPECT_SENSITIVITY
from evaluation.overlays import outlined
from pipeline.finished_run import WARNING, Run
from pipeline.settings import is_given
from utils.errors import InputError

LARGEST = 50e6  # bytes of a file
KEPT = 600  # seconds that an uploaded file is kept
ARGMAX = "largest probability"
# The disclaimer stays at the lower edge of the window when the page is scrolled.
STYLE = """
#warning { position: fixed; bottom: 0; left: 0; right: 0; z-index: 1000; margin: 0; padding: 8px; text-align: center;
           background: #7a1f1f; border-radius: 0 }
#warning, #warning * { color: white }
.gradio-container { padding-bottom: 60px }
"""


def main(config):
    if find_spec("gradio") is None:
        raise InputError("the page needs gradio: run `pip install -r requirements-app.txt`")
    run = Run(config, augment=config.test_time_augmentation if is_given("test_time_augmentation") else None)
    print(WARNING)
    print(f"networks of {config.run_dir}: {run.described()}")
    run.load_networks()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that Ctrl-C removes the folder of the uploads
    with tempfile.TemporaryDirectory(dir=os.environ.get("GRADIO_TEMP_DIR")) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        try:
            page(run).launch(
                **LAUNCH, server_name=config.host, server_port=config.port, inbrowser=config.browser, css=STYLE
            )
        except OSError as error:  # gradio's own, without the reason
            raise InputError(f"{config.host}:{config.port} cannot be used ({error}): choose another --port") from None


# The page loads nothing from other machines, and gradio starts no second server.
LAUNCH = {"share": False, "ssr_mode": False, "footer_links": [], "quiet": True}


def page(run):
    """Build the page.

    Args:
        run: a `pipeline.finished_run.Run`.

    Returns:
        A `gradio.Blocks`.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is sent anywhere
    import gradio

    rules = rules_of(run)
    chosen = next((rule for rule, point in rules.items() if point and point.sensitivity == SUSPECT_SENSITIVITY), ARGMAX)
    with gradio.Blocks(title="Melanoma classification", analytics_enabled=False, delete_cache=(60, KEPT)) as blocks:
        gradio.Markdown("# Melanoma classification in two stages")
        gradio.Markdown(f"Networks of {run.config.run_dir}: {run.described()}.")
        with gradio.Row():
            with gradio.Column():
                file = gradio.File(label="dermoscopy image, 50 MB at most", elem_id="file")
                rule = gradio.Radio(list(rules), value=chosen, label="decide by", elem_id="rule")
                said = gradio.Markdown(elem_id="said")
                bars = gradio.Label(label="probabilities", elem_id="bars")
            with gradio.Column():
                options = {"interactive": False, "buttons": []}
                image = gradio.Image(label="mask (cyan) and box (yellow)", elem_id="image", **options)
                crop = gradio.Image(label="crop", elem_id="crop", **options)
        maps = gradio.Gallery(label="Grad-CAM: where each network sees the decision", elem_id="maps", columns=3)
        gradio.Markdown(WARNING, elem_id="warning")
        outputs = [said, bars, image, crop, maps]
        for event in (file.upload, file.clear, rule.change):
            event(lambda path, rule: answer(run, path, rule), [file, rule], outputs, api_visibility="private")
    return blocks


def rules_of(run):
    """The rules that may decide: dictionary from text to `OperatingPoint`, None for the largest probability."""
    return {ARGMAX: None} | {f"{sensitivity:.0%} sensitivity": point for sensitivity, point in run.points.items()}


def answer(run, path, rule):
    """Predict an image, and return what the page shows: text, probabilities, image, crop and Grad-CAM maps.

    All but the text are None if there is no image or an error.

    Args:
        run: a `pipeline.finished_run.Run`.
        path: the uploaded file; None if there is none.
        rule: one of `rules_of` the run.
    """
    if not path:
        return "", None, None, None, None
    try:
        if Path(path).stat().st_size > LARGEST:
            raise InputError(f"{Path(path).name} is larger than 50 MB: drop a smaller copy")
        found = run.diagnose(path)
        point = rules_of(run)[rule]
        found = replace(found, point=point or found.point, decide_by_point=point is not None)
        maps = [(picture, name) for name, picture in run.maps(found).items()]
    except InputError as error:
        return f"**{str(error).replace(str(path), Path(path).name)}**", None, None, None, None
    probabilities = dict(zip(found.classes, found.deciding.tolist(), strict=True))
    return described(found), probabilities, outlined(found), found.crop, maps


def described(found):
    """A `Diagnosis` in Markdown: probability of the positive class, operating point, decision and remarks."""
    positive = positive_class(found.classes)
    lines = [f"## {positive}: {found.deciding[found.classes.index(positive)]:.3f}"]
    if found.point:
        lines.append(f"**{'suspect' if found.suspect else 'not suspect'}** (suspect: {found.point})")
    lines += [f"decision: {found.decision.replace('_', ' ')}", *(f"Note: {remark}." for remark in found.remarks)]
    if found.mask is not None and not found.mask.any():
        lines.append("Note: no lesion segmented, the whole frame was classified.")
    return "\n\n".join(lines)


if __name__ == "__main__":
    command_line.run(main, config)
