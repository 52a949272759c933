"""Promises of `lib.runs.prepare`: images and records go together, and lesions are read only when somebody asks."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lib.data.dataset import SplitError, reference_half
from lib.runs import prepare as module
from lib.runs.prepare import Prepared, prepare
from tests.runs.small import params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    settings = params(source="phantom", data_dir="", phantom_images=40, image_size=32)
    return prepare(settings, tmp_path_factory.mktemp("project"))


def test_a_run_takes_the_threads_that_it_is_told(tmp_path):
    code = f"""
from pathlib import Path
import torch
from threadpoolctl import threadpool_info
from lib.runs.prepare import prepare
from tests.runs.small import params
torch.set_num_threads(2)
for told in (0, 1):
    prepare(params(source="phantom", data_dir="", phantom_images=40, image_size=32, threads=told), Path("{tmp_path}"))
    print(torch.get_num_threads(), max(pool["num_threads"] for pool in threadpool_info()) > 1)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "IMGAE_DX_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n") == ["2 True", "1 False", ""], done.stderr


def test_images_that_are_scored_stand_beside_their_records(prepared):
    images, records = prepared.by_side()
    assert list(images) == list(records) == ["reference", "validation", "test"]
    place = {image_id: row for row, image_id in enumerate(prepared.data.records["id"])}
    for side, table in records.items():
        expected = prepared.data.images[[place[image_id] for image_id in table["id"]]]
        np.testing.assert_array_equal(images[side][:], expected)


def test_the_two_halves_of_validation_are_all_of_it_and_have_no_image_in_common(prepared):
    _, records = prepared.by_side()
    half = reference_half(prepared.split.validation)
    assert list(records["reference"]["id"]) == list(prepared.split.validation["id"][half])
    assert set(records["reference"]["id"]) ^ set(records["validation"]["id"]) == set(prepared.split.validation["id"])


def test_too_few_validation_images_for_what_follows_training_are_refused_before_it(tmp_path, monkeypatch):
    few, split = [], module.Data.split

    def with_few(data, params):
        found = split(data, params)
        return dataclasses.replace(found, validation=found.validation[: few[0]])

    monkeypatch.setattr(module.Data, "split", with_few)
    for few[:], halves in (([1], "1 .*, 0 "), ([2], "2 .*, 0 ")):
        with pytest.raises(SplitError, match=rf"{halves}for thresholds; expected at least 2 and 1: add normal images"):
            prepare(params(source="phantom", data_dir="", phantom_images=40, image_size=32), tmp_path)


def test_lesions_are_those_of_the_test_images_and_are_read_once_when_asked_for(tmp_path, monkeypatch):
    asked = []
    load = module.load_masks
    monkeypatch.setattr(module, "load_masks", lambda *words: (asked.append(1), load(*words))[1])
    prepared = prepare(params(source="phantom", data_dir="", phantom_images=40, image_size=32), tmp_path)
    assert not asked
    assert prepared.lesions is prepared.lesions
    assert len(asked) == 1
    test = prepared.split.test
    assert set(prepared.lesions) == set(test["id"][test["label"] == "abnormal"])
    assert all(mask.shape == (32, 32) and mask.dtype == bool for mask in prepared.lesions.values())
