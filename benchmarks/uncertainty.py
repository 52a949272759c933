"""CPU seconds and memory of 10,000 patient resamples of 10,000 scores, relative to a loop over scikit-learn's AUROC.

    python -m benchmarks.uncertainty

Every image is a patient, 4,000 of them abnormal. The loop runs 20 resamples in the same process, and its time is scaled
to 10,000. DeLong's variance of the same score needs no resamples. One core.
"""

import resource
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from lib.evidence.delong import delong
from lib.evidence.metrics import METRICS
from lib.evidence.uncertainty import bootstrap

IMAGES, RESAMPLES, LOOPED = 10_000, 10_000, 20


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    random = np.random.default_rng(0)
    is_abnormal, patients = np.arange(IMAGES) < 0.4 * IMAGES, np.arange(IMAGES)
    scores = random.normal(size=IMAGES) + is_abnormal
    classes = [np.flatnonzero(of_class) for of_class in (is_abnormal, ~is_abnormal)]

    def loop() -> None:
        for _ in range(LOOPED):
            rows = np.concatenate([random.choice(members, len(members)) for members in classes])
            roc_auc_score(is_abnormal[rows], scores[rows])

    bootstrap(scores[None, ::10], is_abnormal[::10], patients[::10], 100)  # warm
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop_seconds = seconds(loop) * RESAMPLES / LOOPED
    print(f"a loop over roc_auc_score, scaled from {LOOPED} resamples: {loop_seconds:.1f} s")
    for names in (["auroc"], list(METRICS)):
        spent = seconds(lambda names=names: bootstrap(scores[None], is_abnormal, patients, RESAMPLES, metrics=names))
        print(f"{', '.join(names)}: {spent:.2f} s, 1/{loop_seconds / spent:.0f} of the loop")
    print(f"DeLong: {seconds(lambda: delong(scores[None], is_abnormal, patients)):.3f} s")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory: {after / 1024:.0f} MiB at most, {(after - before) / 1024:.0f} MiB of them for this")


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
