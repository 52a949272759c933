"""The words of the commands -> settings and choices; `lib.runs.actions`, which does the work, is imported after that.

So help, a mistake in the words and a mistyped path take no longer than Python needs to start.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.data.named import check_named
from lib.runs.command import Parser, command
from lib.runs.places import check_export, check_folder, check_model, check_run
from lib.runs.settings import read_settings, settings_of, settings_parser, value_of, words_of


def train(arguments: Sequence[str] | None = None) -> int:
    """`imgae-train params/x.yaml`: train the file's methods without a notebook."""
    params, base = read_settings(
        settings_parser("imgae-train", "Train a params file's methods, without a notebook."), arguments
    )
    from lib.runs import actions

    return actions.train(params, base)


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`imgae-evaluate RUN`: score a trained run, compare it with those it names, write results and figures."""
    parser = Parser(
        "imgae-evaluate",
        long=True,
        description="Score and evaluate a run that has been trained. A stage whose inputs have not changed is skipped.",
    )
    parser.add_argument("run", type=Path, help="the run's folder, for example runs/ra")
    parser.add_argument("--force", action="store_true", help="run every stage, whether its inputs have changed or not")
    typed = parser.parse_args(arguments)
    from lib.runs import actions

    return actions.evaluate(typed.run, again=typed.force)


def run(arguments: Sequence[str] | None = None) -> int:
    """`imgae-run params/x.yaml`: execute the notebook; leave it, its report and the final status in the run folder."""
    params, base = read_settings(settings_parser("imgae-run", "Execute the notebook with a params file."), arguments)
    from lib.runs import actions

    return actions.run(params, base)


def shards(arguments: Sequence[str] | None = None) -> int:
    """`imgae-shards params/x.yaml --to ADDRESS`: write a source's images as parquet shards, to stream from."""
    parser = settings_parser(
        "imgae-shards", "Check the images of a params file's source and write them as parquet shards."
    )
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="a folder, s3://, gs://, hf://: docs/USAGE.md")
    params, base = read_settings(parser, arguments)
    from lib.runs import actions

    return actions.shards(params, base, parser.parse_args(arguments).to)


SCORE = """\
Score radiographs with a trained model, without labels: which are unlike normal ones, how sure that is, and where.

imgae-score runs/ra chest.dcm                      one image: its scores on the terminal, its map in scores-ra/
imgae-score runs/ra films/ more.png --to out       folders, files, addresses of shards; what is there is not repeated
imgae-score hf://OWNER/NAME chest.dcm              a model that imgae-export has written, here or on the hub

The folder gets scores.csv (a row an image: each score, its conformal p-value and threshold, and in what the image is
unlike those that the model knows), maps/ (the residual in 16 bits, and as colours over the image), problems.csv, and
about.json, which says what the numbers promise. --dicom adds to maps/ a Secondary Capture of each DICOM image, which
names its patient. Exit status: 0, or 3 if an image could not be used or, with --dicom, got no such object; the rest is
done. For research only, not for diagnosis.
"""


def score(arguments: Sequence[str] | None = None) -> int:
    """`imgae-score RUN PATH…`: score images without labels by a trained model, and draw where they are anomalous."""
    parser = Parser("imgae-score", long=True, description=SCORE, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="the folder of a scored run or of an exported model, or hf://OWNER/NAME")
    parser.add_argument("images", nargs="+", metavar="PATH", help="a file, a folder, or an address of shards")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where the scores are written; default scores-MODEL")
    parser.add_argument(
        "--false-alarms", type=float, default=0.05, metavar="RATE", help="of normal images; default 0.05"
    )
    parser.add_argument("--primary", action="store_true", help="the primary score alone, which is much faster")
    parser.add_argument("--no-maps", action="store_true", help="write no pictures")
    parser.add_argument("--hash-names", action="store_true", help="write a hash in place of each image's name")
    parser.add_argument(
        "--dicom", action="store_true", help="of each DICOM image, also a Secondary Capture for its archive"
    )
    typed = parser.parse_intermixed_args(arguments)  # a path may stand behind an option
    if not 0 < typed.false_alarms < 1:
        parser.error(f"--false-alarms {typed.false_alarms}: expected a rate between 0 and 1, such as 0.05")
    if typed.dicom and typed.hash_names:
        parser.error("--dicom with --hash-names: a DICOM object names its patient; leave out one of them")
    check_model(typed.model)
    check_named(typed.images)
    check_folder(typed.to or Path())
    from lib.runs import actions

    asked = (typed.false_alarms, typed.primary, not typed.no_maps, typed.hash_names, typed.dicom)
    return actions.score_images(typed.model, typed.images, typed.to, asked)


def export(arguments: Sequence[str] | None = None) -> int:
    """`imgae-export RUN --to FOLDER`: write a run's model as a folder that can be handed on."""
    parser = Parser(
        "imgae-export",
        long=True,
        description="Write the model of an evaluated run: weights, settings, what its scores need, and a model card. "
        "It scores as the run does, to the last bit unless --half is given.",
    )
    parser.add_argument("run", type=Path, help="the run's folder, for example runs/ra")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new or an empty folder")
    parser.add_argument("--primary", action="store_true", help="only what the primary score needs, which stays exact")
    parser.add_argument("--half", action="store_true", help="the same in 16 bits: smallest, scores nearly the same")
    parser.add_argument("--onnx", action="store_true", help="also each method's reconstruction as an ONNX file")
    typed = parser.parse_args(arguments)
    check_run(typed.run)
    check_export(typed.to)
    from lib.runs import actions

    return actions.export(typed.run, typed.to, primary=typed.primary, half=typed.half, onnx=typed.onnx)


def gallery(arguments: Sequence[str] | None = None) -> int:
    """`imgae-gallery RUN_OR_SCORES`: write a page to look through the images, their scores, redrawings and maps."""
    parser = Parser(
        "imgae-gallery",
        long=True,
        description="Write one HTML page to look through a run's test images, or scored images: sorted, filtered, with "
        "a threshold that moves, each with its reconstructions and maps. For research only, not for diagnosis.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN_OR_SCORES", help="an evaluated run, or imgae-score's folder")
    parser.add_argument("--to", type=Path, metavar="FILE.html", help="default gallery.html in the folder")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE.csv", help="of scored images: a table with the columns filename and label"
    )
    typed = parser.parse_args(arguments)
    if typed.to and typed.to.suffix != ".html":
        parser.error(f"--to {typed.to}: expected a file whose name ends in .html")
    from lib.runs.gallery import make

    make(typed.folder, typed.to, typed.labels)
    return 0


def cache(arguments: Sequence[str] | None = None) -> int:
    """`imgae-cache list`, `remove NAME…`, `purge`: the caches of prepared images, and the space that they take."""
    parser = Parser("imgae-cache", description="List and remove caches of prepared images not in use.")
    kinds = parser.add_subparsers(dest="action", required=True)
    kinds.add_parser("list", help="list them, the longest unused first")
    named = kinds.add_parser("remove", help="remove the caches of these names")
    named.add_argument("names", nargs="+", metavar="NAME", help="as `imgae-cache list` prints it")
    purge = kinds.add_parser("purge", help="remove all caches")
    purge.add_argument("--days", type=int, metavar="N", help="only those that were not used for N days, 1 or more")
    typed = parser.parse_args(arguments)
    days = getattr(typed, "days", None)
    if days is not None and days < 1:
        purge.error(f"--days {days}: expected 1 or more; without --days, all caches are removed")
    from lib.runs import actions

    if typed.action == "list":
        return actions.list_caches()
    return actions.remove_caches(getattr(typed, "names", None), days or 0)


STUDY = """\
Keep a run's scores, combine runs with different seeds into a study, and write the page of all studies.

imgae-study research/results/published runs/adult-0 runs/adult-1 ...                      keeps these runs
imgae-study research/results/adult.json research/results/published/adult-{0,1,2,3,4} ...  combines them into a study
imgae-study docs/RESULTS.md research/results/*.json                                       writes the page of all studies
imgae-study runs/settings.md runs/a-0 runs/a-1 runs/b-0 ...                               compares settings, over seeds
imgae-study docs/results.schema.json                                                      writes the files' JSON schema
imgae-study research/results/trials.csv runs/trial-0 runs/trial-1 ...                     adds trials to a table

Runs of one seed count as one: each method is taken from the first run that has it.
"""


def study(arguments: Sequence[str] | None = None) -> int:
    """`imgae-study TARGET SOURCES`: keep runs, combine them into a study, write the page of studies, add trials."""
    parser = Parser("imgae-study", description=STUDY, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path, help="a folder or FILE.json, .csv, .md, .schema.json, see above")
    parser.add_argument("sources", type=Path, nargs="*", help="folders of evaluated or kept runs; for a page, studies")
    typed = parser.parse_args(arguments)
    if bool(typed.sources) == typed.target.name.endswith(".schema.json"):
        parser.error(
            f"{typed.target}: a schema takes no sources; a folder or a study takes run folders, a page takes studies"
        )
    from lib.runs.study import make

    make(typed.target, typed.sources)
    return 0


SWEEP = """\
Execute a params file with many settings: every value of one meets every value of the others.

imgae-sweep params/ra.yaml --set seed=0..4 ra_beta_neg=64,128,256              15 runs, in runs/ra-sweep/
imgae-sweep params/ra.yaml --set learning_rate=log:1e-4:1e-2:5                  5 values at equal factors; also linear:
imgae-sweep params/ra.yaml --set learning_rate=loguniform:1e-4:1e-2 --draws 20  20 values at random; also uniform:
imgae-sweep params/ra.yaml --grid grid.yaml                                     the same from a file: name: [values]

Each run is a folder there, with its params file and what it printed beside it. A run that fails stops no other. The
same command goes on from where it was stopped: no finished run is repeated. Exit status: 0, or 3 if a run has failed.
"""


def sweep(arguments: Sequence[str] | None = None) -> int:
    """`imgae-sweep params/x.yaml --set seed=0..4`: execute a params file with many settings, side by side."""
    parser = settings_parser("imgae-sweep", SWEEP)
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("--grid", type=Path, metavar="FILE", help="a YAML file of settings and their values")
    parser.add_argument("--draws", type=int, default=0, metavar="N", help="how often random values are drawn")
    parser.add_argument("--draw-seed", type=int, default=0, metavar="SEED", help="of these draws; default 0")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="of all runs; default runs/NAME-sweep")
    parser.add_argument("--workers", type=int, metavar="N", help="runs at a time; default: one a core, or one a card")
    parser.add_argument("--backend", choices=("loky", "dask", "ray"), default="loky", help="joblib's; default loky")
    parser.add_argument("--address", default="", help="of a running Dask or Ray cluster, which shares this disk")
    parser.add_argument("--no-notebook", action="store_true", help="train and evaluate, without notebook and report")
    typed = parser.parse_args(arguments)
    for option, least in (("draws", 0), ("draw_seed", 0), ("workers", 1)):
        if (number := getattr(typed, option)) is not None and number < least:
            parser.error(f"--{option.replace('_', '-')} {number}: expected {least} or more")
    if typed.address and typed.backend == "loky":
        parser.error("--address is that of a cluster: give --backend dask or ray with it")
    from lib.runs.grid import grid, names, read_grid
    from lib.runs.sweep import Engine, sweep_over

    words = (read_grid(typed.grid) if typed.grid else {}) | words_of(parser, typed.set)
    if "run_dir" in words:
        parser.error("a sweep names the folders of its runs itself: give --to FOLDER in place of run_dir")
    settings = grid(words, typed.draws, typed.draw_seed)
    runs = [
        settings_of(typed.params, {name: value_of(parser, name, text) for name, text in one.items()})
        for one in settings
    ]
    base = runs[0][1]
    folder = (typed.to or base / "runs" / f"{typed.params.stem}-sweep").resolve()
    engine = Engine(typed.backend, typed.address, typed.workers)
    named = dict(zip(names(settings), (params for params, _ in runs), strict=True))
    return 3 if sweep_over(named, folder, base, engine, notebook=not typed.no_notebook) else 0


train_command = command(train)
evaluate_command = command(evaluate)
run_command = command(run)
shards_command = command(shards)
cache_command = command(cache)
study_command = command(study)
score_command = command(score)
export_command = command(export)
gallery_command = command(gallery)
sweep_command = command(sweep)

if __name__ == "__main__":  # python -m lib.runs.cli train params/ra.yaml, as torchrun and a sweep's workers need it
    sys.exit(globals()[f"{sys.argv[1]}_command"](sys.argv[2:]))
