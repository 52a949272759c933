"""Promises of `lib.params`: what is refused and in which words, the notebook's cell, and where a run lies."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from lib.methods.variants import VARIANTS
from lib.params import PRESETS, ParameterError, Params, project_root
from lib.scores.references import REFERENCES
from lib.strict_yaml import NUMBER, load

ROOT = Path(__file__).resolve().parents[1]
PARAMS_FILES = sorted((ROOT / "params").glob("*.yaml"))
NAMES = ", ".join(map(repr, VARIANTS))
FIELDS = set(Params.model_fields)


def refusal(**settings) -> str:
    with pytest.raises(ParameterError) as error:
        Params(**settings)
    return str(error.value)


def yaml_file(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_unknown_name_is_answered_with_the_nearest_one_and_all_the_others():
    words = refusal(learning_rte=1e-4)
    assert words.startswith("learning_rte=0.0001: there is no such parameter")
    assert "did you mean learning_rate?" in words
    assert set(re.findall(r"\w+", words)) >= FIELDS


def test_a_number_that_yaml_reads_as_text_is_refused_with_the_way_to_write_it(tmp_path):
    file = yaml_file(tmp_path, "learning_rate: 1e-4\n")
    with pytest.raises(ParameterError) as error:
        Params.from_yaml(file)
    assert "learning_rate='1e-4' is str; learning_rate wants a number, above 0, at most 1" in str(error.value)
    advice = re.search(r"write (\S+), without quotes", str(error.value)).group(1)
    assert Params.from_yaml(yaml_file(tmp_path, f"learning_rate: {advice}\n")).learning_rate == 1e-4


@pytest.mark.parametrize("text", ["100", "1e2", "+100", "1_00"])
def test_the_advice_for_a_whole_number_that_is_text_is_itself_accepted(tmp_path, text):
    advice = re.search(r"write (\S+), without quotes", refusal(epochs=text)).group(1)
    assert Params.from_yaml(yaml_file(tmp_path, f"epochs: {advice}\n")).epochs == 100


@pytest.mark.parametrize("settings", [{"precision": "32"}, {"learning_rate": "nan"}, {"epochs": "2.5"}])
def test_no_advice_is_given_that_would_be_refused_again(settings):
    assert "without quotes" not in refusal(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": True}, "epochs=True is bool; epochs wants an integer, at least 1"),
        ({"epochs": 2.0}, "epochs=2.0 is float; epochs wants an integer, at least 1"),
        ({"epochs": 0}, "epochs=0 is int; epochs wants an integer, at least 1"),
        ({"learning_rate": True}, "learning_rate=True is bool; learning_rate wants a number"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 is float; learning_rate wants a number, above 0, at most 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan is float; learning_rate wants a number, above 0"),
        ({"ra_beta_kl": float("inf")}, "ra_beta_kl=inf is float; ra_beta_kl wants a number, at least 0"),
        ({"validation_fraction": 0.5}, "validation_fraction=0.5 is float; validation_fraction wants a number, above 0"),
        ({"methods": "unet"}, f"methods='unet' is str; methods wants a list, each entry one of {NAMES}"),
        ({"methods": "unet"}, "(write [unet])"),
        ({"methods": ["unte"]}, f"methods[0]='unte' is str; methods wants a list, each entry one of {NAMES}"),
        ({"methods": ["unte"]}, "did you mean unet?"),
        ({"methods": ["ra", 3]}, f"methods[1]=3 is int; methods wants a list, each entry one of {NAMES}"),
        ({"references": ["kn"]}, f"references wants a list, each entry one of {', '.join(map(repr, REFERENCES))}"),
        ({"references": ["kn"]}, "did you mean knn?"),
        ({"methods": ["ra", "ra"]}, "names a method twice"),
        (
            {"source": "foldr"},
            "source='foldr' is str; source wants one of 'phantom', 'folder', 'stream', 'rsna', "
            "'rsna-dicom', 'kermany', 'nih', 'nih-sample', 'vinbigdata'; did you mean folder?",
        ),
        ({"widths": [8, "16"]}, "widths[1]='16' is str; widths wants a list, each entry an integer"),
        ({"choose_from": [2, 9], "epochs": 8}, "choose_from=[2, 9] names an epoch that does not exist; wanted numbers"),
        ({"widths": [8, 0]}, "widths=[8, 0] holds a number below 1"),
        ({"data_dir": None}, "data_dir=None is NoneType; data_dir wants text"),
        ({"source": "folder"}, "data_dir='' is empty, but source='folder' reads images from it"),
        ({"image_size": 100, "widths": [4] * 4}, "image_size=100 is not a multiple of 16"),
        ({"image_size": 100, "widths": [4] * 4}, "write 96 or 112, or fewer widths"),
        ({"image_size": 20, "widths": [4, 8, 16, 32]}, "write 16 or 32, or fewer widths"),
    ],
)
def test_a_wrong_value_is_refused_in_the_users_words(settings, words):
    assert words in refusal(**settings)


def test_an_empty_list_of_widths_is_told_that_it_wants_an_entry():
    assert re.search(r"at least (1|one)", refusal(widths=[]))


def test_every_wrong_setting_is_named_at_once():
    words = refusal(epochs=0, batch_sise=3, methods="ra").splitlines()
    assert [line.split("=")[0] for line in words] == ["methods", "epochs", "batch_sise"]


def test_phantoms_smaller_than_a_chest_needs_are_refused_with_the_settings():
    assert "image_size=16" in refusal(image_size=16, widths=[4])
    assert Params(image_size=16, widths=[4], source="folder", data_dir="x").image_size == 16


def test_a_warm_up_that_leaves_no_epoch_for_the_game_is_refused():
    assert "ra_warmup_epochs=5 leaves none of the 5 epochs for the game" in refusal(epochs=5, ra_warmup_epochs=5)
    assert Params(epochs=5, ra_warmup_epochs=4).epochs == 5


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 3, "ra_warmup_epochs": 5},
        {"ra_as_published": ["frozen-normalisation"], "normalisation": "group"},
    ],
)
@pytest.mark.parametrize("methods", [["unet"], ["ae-16"], []])
def test_settings_of_a_method_that_is_not_trained_refuse_no_run(methods, settings):
    assert Params(methods=methods, **settings).methods == methods


def test_whole_numbers_serve_where_a_fraction_is_allowed():
    assert Params(learning_rate=1).learning_rate == 1


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValidationError, match="frozen"):
        Params().epochs = 3


def test_two_runs_do_not_share_a_default_list():
    before = list(Params().widths)
    Params().widths.append(1)
    assert Params().widths == before


def test_what_is_given_beside_a_file_wins_over_it(tmp_path):
    params = Params.from_yaml(yaml_file(tmp_path, "epochs: 8\nseed: 4\n"), epochs=9)
    assert (params.epochs, params.seed, params.batch_size) == (9, 4, Params().batch_size)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_gives_the_defaults(tmp_path, text):
    assert Params.from_yaml(yaml_file(tmp_path, text)) == Params()


def test_off_is_a_word_though_yaml_reads_it_as_false(tmp_path):
    assert Params.from_yaml(yaml_file(tmp_path, "tracking: off\n")).tracking == "off"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"absent\.yaml is not there; .* params/"):
        Params.from_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "kind"), [("- epochs\n", "list"), ("epochs\n", "str"), ("[]\n", "list"), ("0", "int")]
)
def test_a_file_without_names_is_refused(tmp_path, text, kind):
    with pytest.raises(ParameterError, match=rf"run\.yaml holds {kind}, wanted lines of `name: value`"):
        Params.from_yaml(yaml_file(tmp_path, text))


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"run\.yaml"):
        Params.from_yaml(yaml_file(tmp_path, "methods: [unet\n"))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("epochs: 3\nseed: 1\nepochs: 1\n", 3, "epochs is set twice, first in line 1"),
        ('epochs: 3\n"epochs": 3\n', 2, "epochs is set twice"),
        ("{epochs: 3, epochs: 1}\n", 1, "epochs is set twice"),
        ("seed: 010\n", 1, "010 is not a plain number"),
        ("\nepochs: 1:30\n", 2, "1:30 is not a plain number"),
        ("epochs: 1_0\n", 1, "1_0 is not a plain number"),
        ("seed: 0x10\n", 1, "0x10 is not a plain number"),
        ("seed: 0b11\n", 1, "0b11 is not a plain number"),
        ("widths:\n- 4\n- 010\n", 3, "010 is not a plain number"),
        ("seed: -010\n", 1, "-010 is not a plain number"),
        ("learning_rate: 0.000_1\n", 1, "0.000_1 is not a plain number"),
        ("learning_rate: 1:30.5\n", 1, "1:30.5 is not a plain number"),
        ('seed: !!int "010"\n', 1, "!!int is a tag"),
        ("seed: 1\nepochs: !!bool maybe\n", 2, "!!bool is a tag; write the value alone, text in quotes"),
        ("data_dir: !!timestamp 2024-13-45\n", 1, "!!timestamp is a tag"),
        ("methods:\n- ! ra\n", 2, "! is a tag"),
        ("!!str epochs: 2\n", 1, "!!str is a tag"),
        ("methods: !mine [ra]\n", 1, "!mine is a tag"),
        (f"seed: {'1' * 5000}\n", 1, "cannot be read as a number"),
        ("methods: &a [ra]\nchoose_from: *a\n", 2, r"\*a is an alias"),
        (f"methods: {'[' * 5000}\n", 1, "nested too deeply|not YAML"),
        ("seed: 1\nepochs: [3\n", 3, "not YAML"),
        ("seed: 1\nrun_dir: a\0b\n", 2, r"not YAML: the character U\+0000"),
    ],
)
def test_what_yaml_reads_otherwise_than_a_person_is_refused_by_line(tmp_path, text, line, words):
    with pytest.raises(ParameterError, match=rf"run\.yaml:{line}: .*({words})"):
        Params.from_yaml(yaml_file(tmp_path, text))


def test_aliases_that_stand_for_a_billion_names_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
    with pytest.raises(ParameterError, match=r"run\.yaml:2: \*a0 is an alias"):
        Params.from_yaml(yaml_file(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(("text", "value"), [("2024-01-05", "2024-01-05"), ("'010'", "010"), ('"1:30"', "1:30")])
def test_a_date_and_what_stands_in_quotes_is_text(tmp_path, text, value):
    assert Params.from_yaml(yaml_file(tmp_path, f"run_dir: {text}\n")).run_dir == value


@pytest.mark.parametrize("text", ["0", "-1", "+7", "0.5", "1e-4", "1.5e+3", "0e0", "12", ".5"])
def test_a_plain_number_is_taken_as_it_is(text):
    assert NUMBER.fullmatch(text) and float(load(f"x: {text}")["x"]) == float(text)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_in_another_encoding_is_named_with_what_to_do(tmp_path, encoding):
    (tmp_path / "run.yaml").write_bytes("# für alle\nepochs: 1\n".encode(encoding))
    with pytest.raises(ParameterError, match=r"run\.yaml is not text in UTF-8 .*; save it as UTF-8"):
        Params.from_yaml(tmp_path / "run.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert Params.from_yaml(yaml_file(tmp_path, "\ufeffepochs: 8\n")).epochs == 8


def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    for file in (tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(ParameterError, match=r"cannot be read: .+"):
            Params.from_yaml(file)


def test_a_message_echoes_no_more_of_a_value_than_a_reader_can_use():
    assert len(refusal(epochs="x" * 8_000_000)) < 1000
    assert len(refusal(choose_from=[10**6] * 10**6)) < 1000
    assert len(refusal(methods=["x" * 1000 + str(n) for n in range(10_000)])) < 10_000
    assert len(refusal(**{"x" * 10_000: 1})) < 2000
    assert len(refusal(ra_warmup_epochs=10**400)) < 400
    assert len(refusal(run_dir="https://" + "x/" * 10_000)) < 400


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 10**12}, "epochs=1000000000000 is beyond what this can compute; write at most 1,000,000"),
        ({"resamples": 10**9}, "resamples=1000000000 is beyond"),
        ({"latent_dim": 10**9}, "latent_dim=1000000000 is beyond"),
        ({"batch_size": 10**9}, "batch_size=1000000000 is beyond"),
        ({"epochs": 10**4000}, "epochs=.+ is beyond"),
        ({"widths": [16, 10**7]}, r"widths=\[16, 10000000\] is beyond what this can compute; write at most 65,536"),
        ({"widths": [1] * 100_000}, "halves an image 100,000 times; write at most 10"),
        ({"run_dir": "a\0b"}, "run_dir='a.x00b' holds a control character"),
        ({"data_dir": "a\nb"}, "data_dir='a.nb' holds a control character"),
        ({"run_dir": "a/\ud800"}, r"run_dir='a/.ud800' is no text in UTF-8; give that place another name"),
        ({"data_dir": "\udcff/a"}, r"data_dir='.udcff/a' is no text in UTF-8"),
        ({"keep_in": "runs/" + "x" * 300}, "keep_in='runs/x.*' holds a name of more than 255 bytes"),
        ({"run_dir": "é" * 200}, "run_dir='é.*' holds a name of more than 255 bytes"),
    ],
)
def test_what_no_machine_can_allocate_or_no_disk_can_hold_is_refused_before_it_is_tried(settings, words):
    assert re.search(words, refusal(**settings))


def test_the_papers_network_and_a_long_address_are_not_too_large():
    Params(widths=[64, 128, 256, 512, 512], latent_dim=512, image_size=1024, data_dir="s3://" + "x" * 300)


def test_a_list_that_is_text_and_a_number_in_a_texts_place_are_told_how_to_be_written():
    assert "this is text: write it without quotes" in refusal(widths="[4, 8]")
    assert '-y "widths: [4, 8]"' in refusal(widths="[4, 8]")
    assert "(put it in quotes)" in refusal(run_dir=2024)


@pytest.mark.parametrize("name", ["self", "file", "cls"])
def test_a_name_that_python_uses_is_refused_like_any_other(tmp_path, name):
    with pytest.raises(ParameterError, match="there is no such parameter"):
        Params.from_yaml(yaml_file(tmp_path, f"{name}: 1\n"))
    with pytest.raises(ParameterError, match="there is no such parameter"):
        Params.from_yaml(yaml_file(tmp_path, ""), **{name: 1})


def loaded(file: Path) -> Params:
    """The file's settings; one that leaves the folder of images to its user gets a name for it."""
    absent = (
        re.search(r"^source: folder$", text := file.read_text(encoding="utf-8"), re.M) and "\ndata_dir:" not in text
    )
    return Params.from_yaml(file, **{"data_dir": "somewhere"} if absent else {})


@pytest.mark.parametrize("file", PARAMS_FILES, ids=lambda file: file.name)
def test_a_params_file_loads_and_opens_by_saying_what_it_is_for(file):
    loaded(file)
    first, *_ = file.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    assert first.startswith("# ")
    assert re.search(r"\b(second|minute|hour|s|min|h)s?\b", comment), "how long does it take?"
    assert re.search(r"\b(CPU|GPU|T4|card|core|laptop|machine|Colab)s?\b", comment), "on what machine?"


@pytest.mark.skipif(PARAMS_FILES == [], reason="no params files yet")
def test_no_two_params_files_are_the_same_run():
    runs = [loaded(file).model_dump_json(exclude={"run_dir"}) for file in PARAMS_FILES]
    assert len(set(runs)) == len(runs)


def checkout(folder: Path) -> Path:
    (folder / "notebooks" / "deep").mkdir(parents=True)
    (folder / "build_notebook.py").write_text("")
    return folder.resolve()


def test_the_project_is_found_from_any_folder_of_a_checkout(tmp_path, monkeypatch):
    root = checkout(tmp_path / "project")
    for folder in (root, root / "notebooks", root / "notebooks" / "deep"):
        assert project_root(folder) == root
        monkeypatch.chdir(folder)
        assert project_root() == root


def test_outside_a_checkout_the_project_is_where_the_command_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path.resolve()


def test_the_environment_names_the_project_before_all_else(tmp_path, monkeypatch):
    root = checkout(tmp_path / "project")
    monkeypatch.setenv("IMGAE_DX_ROOT", str(tmp_path / "else"))
    assert project_root(root) == (tmp_path / "else").resolve()


@pytest.mark.parametrize("address", ["s3://bucket/runs", "gs://bucket", "file:///tmp/x", "https://host/x"])
@pytest.mark.parametrize("name", ["run_dir", "keep_in"])
def test_an_address_where_a_folder_is_expected_is_refused(name, address):
    with pytest.raises(ParameterError, match=rf"{name}='{address}' is an address; wanted a folder"):
        Params(**{name: address})


def test_a_run_folder_is_absolute_and_a_relative_one_lies_under_the_project(tmp_path):
    assert Params(run_dir="runs/x").folder(tmp_path) == tmp_path.resolve() / "runs" / "x"
    assert Params(run_dir=str(tmp_path / "y")).folder(Path("/nowhere")) == (tmp_path / "y").resolve()
    assert Params().folder(tmp_path).parent == tmp_path.resolve() / "runs"
    assert Params().folder(Path(".")).is_absolute()


def test_other_settings_get_another_run_folder_and_equal_ones_the_same(tmp_path):
    variants = [Params(), Params(seed=1), Params(methods=["ra"]), Params(methods=[]), Params(learning_rate=1e-3)]
    folders = [params.folder(tmp_path) for params in variants]
    assert len(set(folders)) == len(folders)
    assert Params().folder(tmp_path) == folders[0]
    assert folders[2].name.startswith("ra-phantom-")


@pytest.mark.parametrize("stretch", [[99.0, 1.0], [5.0, 5.0], [-1.0, 99.0], [1.0, 100.5]])
def test_a_stretch_that_is_no_range_of_percentiles_is_refused(stretch):
    assert "is not a range of percentiles; wanted 0 <= low < high <= 100" in refusal(stretch=stretch)


def test_a_relative_data_dir_lies_under_the_base_and_an_address_stays(tmp_path):
    assert Params(data_dir="a/b").with_paths_under(tmp_path).data_dir == str(tmp_path / "a" / "b")
    for address in ("hf://datasets/o/n", "s3://bucket/x", "https://host/x", ""):
        assert Params(data_dir=address).with_paths_under(tmp_path).data_dir == address


def test_a_tilde_in_a_path_is_the_users_home_as_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "anna"))
    params = Params(data_dir="~/x", keep_in="~nobody-here/y", run_dir="~/z")
    assert params.with_paths_under(tmp_path).data_dir == str(tmp_path / "anna" / "x")
    assert params.with_paths_under(tmp_path).keep_in == str(tmp_path / "~nobody-here" / "y")
    assert params.folder(tmp_path) == tmp_path / "anna" / "z"


def test_training_settings_are_all_but_where_and_how_long_it_runs():
    free = {"methods", "epochs", "data_dir", "run_dir", "tracking", "resamples", "labels", "on_bad_image", "device"}
    free |= {"keep_in", "references", "backbone", "ra_map"}  # where it is kept; what is scored beside, and how
    free |= {"measure_every", "threads", "compare_with"}  # what is measured on the way; how fast; what it stands beside
    free |= {"split_seed", "phantom_severity", "phantom_lesions"}  # the split's hash says which images
    free |= {"preset", "seeds"}  # what others are left at; which runs there are besides
    assert set(Params().training_settings()) == FIELDS - free
    others = Params(methods=["ra"], epochs=8, data_dir="x", run_dir="y", tracking="wandb", resamples=100, device="cpu")
    assert others.training_settings() == Params().training_settings()
    assert Params(latent_dim=3).training_settings() != Params().training_settings()


def test_frozen_normalisation_wants_one_that_keeps_statistics():
    message = refusal(ra_as_published=["frozen-normalisation"], normalisation="group")
    assert "keeps no statistics to freeze" in message and "write normalisation: batch" in message


def test_a_small_autoencoder_wants_a_size_that_it_halves_four_times():
    assert "image_size=40 is not a multiple of 16, which ae-4 wants" in refusal(
        methods=["ae-4"], image_size=40, widths=[4, 8]
    )


@pytest.mark.parametrize(
    ("settings", "extras"),
    [
        ({}, []),
        ({"source": "rsna-dicom"}, ["dicom", "kaggle"]),
        ({"source": "rsna"}, ["kaggle"]),
        ({"source": "rsna", "data_dir": "x"}, []),
        ({"tracking": "wandb"}, ["tracking"]),
        ({"source": "stream", "data_dir": "hf://x"}, ["stream"]),
        ({"backbone": "efficientnet-lite0"}, ["features"]),
        ({"ra_map": "lpips"}, ["features"]),
    ],
)
def test_settings_name_the_optional_dependencies_that_they_want(settings, extras):
    assert Params(**settings).extras == extras


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_is_left_open_and_nothing_that_is_given(preset):
    sets = Params.defaults(preset)
    assert Params(preset=preset).model_dump(include={*sets}) == sets
    assert Params(preset=preset, **dict.fromkeys(sets)) == Params(preset=preset)
    given = Params(preset=preset, image_size=96, epochs=7, widths=[4, 8])
    assert (given.image_size, given.epochs, given.widths) == (96, 7, [4, 8])
    assert given.model_dump(exclude={"image_size", "epochs", "widths"}) == Params(preset=preset).model_dump(
        exclude={"image_size", "epochs", "widths"}
    )


def test_presets_decide_the_same_settings_and_do_not_share_their_lists():
    assert len({frozenset(Params.defaults(preset)) for preset in PRESETS}) == 1
    Params(preset="full").widths.append(7)
    assert 7 not in Params(preset="full").widths


def test_an_unknown_preset_and_none_where_no_preset_decides_are_refused():
    assert "preset='ful' is str; preset wants one of 'quick', 'standard', 'full'; did you mean full?" in refusal(
        preset="ful"
    )
    assert "seed=None is NoneType; seed wants an integer" in refusal(seed=None)


def test_the_first_of_several_seeds_is_the_runs_own():
    assert Params(seeds=[3, 4]).seed == 3 and Params(seeds=[3, 4], seed=3).seeds == [3, 4]
    assert "seed=0 is not the first of seeds=[3, 4]: write seed: 3" in refusal(seeds=[3, 4], seed=0)
    assert "a seed counts once" in refusal(seeds=[1, 1]) and "a seed counts once" in refusal(seeds=[1, -1])


@pytest.mark.parametrize("severity", [[0.8, 0.2], [0.0, 0.0], [-0.1, 1.0], [0.5, 1.1]])
def test_severities_that_are_no_range_are_refused(severity):
    assert "is not a range of severities; wanted 0 <= least <= most <= 1" in refusal(phantom_severity=severity)
