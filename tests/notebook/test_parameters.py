"""Promises of the notebook's parameters cell: what it shows, and how it is read back."""

import ast
import json
import re

import nbformat
import papermill
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from pydantic import Field

from build_notebook import ROOT, build
from lib.notebook.parameters import FIRST, TITLE, parameters_cell, read_parameters
from lib.params import PRESETS, ParameterError, Params


def lines(model: type[Params] = Params) -> dict[str, tuple[str, str]]:
    """Of each parameter, in the cell's order, the line that sets it and the help above that line."""
    found, above = {}, []
    for line in parameters_cell(model).splitlines():
        if setting := re.match(r"(\w+)(: [^=]+)? = ", line):
            found[setting[1]] = line, " ".join(above)
        above = [*above, line.removeprefix("# ")] if line.startswith("# ") and "@" not in line else []
    return found


def defaults() -> dict:
    """The default of each parameter as the cell has it: None where the preset decides."""
    return Params().model_dump() | dict.fromkeys(Params.defaults("quick"))


def test_the_cell_holds_one_literal_a_field_and_they_are_the_defaults():
    found = {}
    for node in ast.parse(parameters_cell()).body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        found[target.id] = ast.literal_eval(node.value)
    assert found == defaults() and Params(**found) == Params()
    assert list(found) == list(lines())


def test_the_help_of_what_a_preset_decides_says_what_each_of_them_sets():
    for preset in PRESETS:
        for name, value in Params.defaults(preset).items():
            line, above = lines()[name]
            assert re.search(rf"None: .*{preset} {re.escape(str(value))}(,|$)", above or line), name


def test_every_parameter_has_its_help_in_its_line_or_above_and_no_line_is_wider_than_a_screen():
    for name, (line, above) in lines().items():
        assert Params.model_fields[name].description in (above or line.partition("# @param ")[2]), name
    assert max(map(len, parameters_cell().splitlines())) <= 120


def test_what_most_runs_change_comes_first_and_everything_else_in_the_order_of_the_model():
    cell = parameters_cell()
    assert list(lines())[: len(FIRST)] == list(FIRST)
    assert list(lines())[len(FIRST) :] == [name for name in Params.model_fields if name not in FIRST]
    common, rest = re.findall(r"^# @markdown .*$", cell, re.M)
    assert cell.index(common) < cell.index("\npreset:") < cell.index("\nrun_dir:") < cell.index(rest)


def test_the_cell_states_what_is_allowed_in_the_form_field_or_in_words():
    words = {"ge": ("min", "at least"), "gt": (None, "above"), "le": ("max", "at most"), "lt": (None, "below")}
    for name, (line, above) in lines().items():
        form = json.loads(re.search(r"# @param ([{\[].*?[}\]])( # |$)", line)[1])
        help_text = above or line.rpartition(" # ")[2]
        bounds = Params.model_fields[name].metadata
        limits = {kind: getattr(bound, kind) for bound in bounds for kind in words if hasattr(bound, kind)}
        for kind, limit in limits.items():
            in_form, in_words = words[kind]
            stated = form.get(in_form) == limit if isinstance(form, dict) else False
            assert stated or f"{in_words} {limit:,}" in help_text, name
        hint = str(Params.model_fields[name].annotation)
        entries = re.findall(r"'([\w-]+)'", hint) if "list" in hint else []
        assert all(f"'{entry}'" in help_text for entry in entries), name


def test_the_cells_types_are_those_of_its_values():
    namespace: dict = {}
    exec(parameters_cell(), namespace)
    for name, hint in namespace["__annotations__"].items():
        value, kind = namespace[name], getattr(hint, "__origin__", hint)
        assert type(value) is kind, name
        if kind is list:
            assert {type(entry) for entry in value} <= set(hint.__args__), name


def test_every_choice_of_a_field_is_in_its_drop_down():
    names = "source labels on_bad_image square precision device tracking normalisation unet_skips unet_corruption"
    for name in [*names.split(), "backbone", "ra_map"]:
        choices = ast.literal_eval(re.search(r"@param (\[.*?\])", lines()[name][0]).group(1))
        for choice in choices:
            assert getattr(Params(**{"data_dir": "x", name: choice}), name) == choice
        with pytest.raises(ParameterError) as error:
            Params(**{name: "other"})
        assert all(repr(choice) in str(error.value) for choice in choices)


def test_papermill_sees_every_name_of_the_cell_with_its_default(tmp_path):
    cell = nbformat.v4.new_code_cell(parameters_cell(), metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "notebook.ipynb")
    seen = papermill.inspect_notebook(str(tmp_path / "notebook.ipynb"))
    assert {name: ast.literal_eval(entry["default"]) for name, entry in seen.items()} == defaults()
    for name, (line, above) in lines().items():
        assert above or Params.model_fields[name].description in seen[name]["help"]
        assert line.partition("  # ")[2] == seen[name]["help"]


def notebook(*cells: str) -> dict:
    """The namespace of a kernel that has executed these cells."""
    namespace: dict = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, namespace)
    return namespace


def test_a_chapter_that_has_used_a_parameters_name_since_does_no_harm():
    namespace = notebook(parameters_cell(), "# Parameters\nmethods = ['ra']")
    assert read_parameters(namespace | {"methods": ["ra", "unet"], "source": object()}).methods == ["ra"]


def test_a_computed_value_in_the_cell_is_refused():
    with pytest.raises(ParameterError, match=r"10 \* 2 is computed; the parameters cell takes plain values only"):
        read_parameters(notebook(parameters_cell().replace("\nepochs = None", "\nepochs: int = 10 * 2")))


def test_the_untouched_cell_gives_the_defaults():
    assert read_parameters(notebook("import os", parameters_cell(), "epochs_left = 3")) == Params()


def test_what_papermill_injects_wins_over_the_cell():
    params = read_parameters(notebook(parameters_cell(), '# Parameters\nmethods = ["ra"]\nlearning_rate = 0.001\n'))
    assert (params.methods, params.learning_rate, params.epochs) == (["ra"], 1e-3, Params().epochs)


@pytest.mark.parametrize("written", ["epoch = 3", "\nepoch = 3", "epoch, seed = 3, 4"])
def test_a_misspelt_name_in_the_injected_cell_is_found(written):
    with pytest.raises(ParameterError, match=r"epoch=3: there is no such parameter; did you mean epochs\?"):
        read_parameters(notebook(parameters_cell(), f"# Parameters\n{written}\n"))


def test_a_misspelt_name_in_the_parameters_cell_is_found():
    with pytest.raises(ParameterError, match=r"did you mean epochs\?"):
        read_parameters(notebook(parameters_cell().replace("\nepochs =", "\nepoch =")))


def test_names_of_other_cells_are_nobodys_settings():
    assert read_parameters(notebook("epoch = 3", parameters_cell(), "batch = 4")) == Params()


def test_a_cell_that_is_corrected_and_run_again_is_read_in_its_last_form():
    wrong, right = parameters_cell().replace("\nepochs = None", "\nepoch = 3"), parameters_cell()
    params = read_parameters(notebook(wrong, right.replace("\nepochs = None", "\nepochs = 8")))
    assert params == Params(epochs=8)


@pytest.mark.parametrize("title", ["# mine\n# @title Parameters", "# @title Parameters of mine", "", "\n# 1"])
def test_a_cell_that_lost_its_title_is_still_the_parameters_cell(title):
    retitled = parameters_cell().replace("# @title Parameters", title).replace("\nepochs = None", "\nepochs = 55")
    assert read_parameters(notebook(parameters_cell(), retitled)).epochs == 55


def test_a_cell_below_a_magic_is_read_too():
    timed = parameters_cell().replace("\nepochs = None", "\nepochs = 55")
    ran = TransformerManager().transform_cell(f"%%time\n{timed}")
    assert read_parameters({"In": ["", parameters_cell(), ran]}).epochs == 55


def test_other_cells_are_not_taken_for_the_parameters_cell_however_they_look_and_in_no_time():
    others = "# @title Parameters of the figure\nsize = 3", "# a note\n" + "\n" * 5000 + "x = 1"
    broken = "get_ipython().run_cell_magic('time', '', body)", "get_ipython().run_cell_magic('time', '', 'a' 'b\\')"
    assert read_parameters({"In": [*others, parameters_cell(), *others, *broken]}) == Params()


def test_the_parameters_cell_run_again_wins_over_what_was_injected_before():
    again = parameters_cell().replace("\nepochs = None", "\nepochs = 33")
    assert read_parameters(notebook(parameters_cell(), "# Parameters\nepochs = 11", again)).epochs == 33


@pytest.mark.parametrize("line", ["seed += 5", "if True:\n    epochs = 7", "import os"])
def test_a_line_that_sets_no_parameter_is_refused(line):
    with pytest.raises(ParameterError, match=re.escape(f"`{line.splitlines()[0]}` does not set a parameter")):
        read_parameters(notebook(f"{parameters_cell()}\n{line}"))


def test_one_line_can_set_two_parameters():
    params = read_parameters(notebook(f"{TITLE}\nseed = epochs = 6\nra_warmup_epochs = 2"))
    assert (params.seed, params.epochs) == (6, 6)


@pytest.mark.parametrize("line", ["seed = 4", "epochs, seed = 30, 4", "seed: int = 0"])
def test_a_setting_that_is_set_twice_in_a_cell_is_refused_by_line(line):
    for cells in ([f"{TITLE}\n\nseed = 3\n{line}"], [parameters_cell(), f"# Parameters\n\nseed = 3\n{line}"]):
        with pytest.raises(ParameterError, match="line 4 of the parameters cell sets seed again, first in line 3"):
            read_parameters(notebook(*cells))


@pytest.mark.parametrize("number", ["0o12", "0x10", "0b11", "1_0", "[1_0]", "-0x1", "1_0.5", "1e1_0"])
def test_a_number_in_another_base_or_with_underscores_is_refused_by_line(number):
    with pytest.raises(ParameterError, match=r"line 2 of the parameters cell: \S+ is not a plain number"):
        read_parameters(notebook(f"{TITLE}\nseed = {number}"))


def test_a_leading_zero_is_refused_by_line():
    with pytest.raises(ParameterError, match="line 2, leading zeros"):
        read_parameters({"In": ["", f"{TITLE}\nseed = 010"]})


@pytest.mark.parametrize(
    "later", ["epochs = 5", "x = 1\nif True:\n    epochs: int = 5", "epochs += 5", "seed, epochs = 5, 2 * 5"]
)
def test_a_setting_in_a_later_cell_has_no_effect_and_is_refused_with_the_cell_to_set_it_in(later):
    with pytest.raises(ParameterError, match=r"In\[3\] sets .*epochs, which has no effect .* `# @title Parameters`"):
        read_parameters({"In": ["", parameters_cell(), "# Parameters\nseed = 1", later]})
    assert read_parameters({"In": ["", later, parameters_cell()]}) == Params()


def test_a_cell_trimmed_to_a_few_lines_without_its_title_is_refused_whether_the_whole_one_ran_before_or_not():
    for cells in ([parameters_cell()], []):
        with pytest.raises(ParameterError, match=r"sets seed, epochs, .* write this line above it"):
            read_parameters(notebook(*cells, "# mine\nseed = 3\nepochs = 7"))
    with_title = f"{TITLE}\nseed = 3\nepochs = 7"
    assert read_parameters(notebook(parameters_cell(), with_title)) == Params(seed=3, epochs=7)


def test_a_trimmed_cell_leaves_the_defaults_of_what_a_chapter_calls_otherwise():
    assert read_parameters({"source": object(), "In": ["", f"{TITLE}\nseed = 3"], "seed": 3}) == Params(seed=3)


@pytest.mark.parametrize(
    "later", ["source = open_source(params)", "def f():\n    seed = 3", "for seed in (1, 2): pass"]
)
def test_a_parameters_name_may_be_used_for_something_else(later):
    assert read_parameters({"In": ["", parameters_cell(), later]}) == Params()


def test_no_chapter_sets_a_parameter_to_a_plain_value():
    """Or else its reader, back at chapter 1, would be told that this has no effect."""
    cells = [cell.source for cell in build(ROOT).cells if cell.cell_type == "code" and "%%" not in cell.source[:2]]
    assert read_parameters({"In": ["", *cells]}) == Params()


def test_a_switch_has_a_form_field_and_a_setting_without_one_is_refused_by_name():
    class More(Params):
        mirror: bool = Field(True, description="a switch")
        name: str = Field("Zoë 😀", description="text")

    cell = parameters_cell(More)
    assert 'mirror: bool = True  # @param {"type":"boolean"} # a switch' in cell
    assert read_parameters(notebook(cell), More) == More()

    class Maybe(Params):
        count: int | None = Field(None, description="none or a number")

    with pytest.raises(TypeError, match=r"Params\.count has no form field"):
        parameters_cell(Maybe)


def test_text_in_a_numbers_place_is_refused_in_the_notebook_too():
    with pytest.raises(ParameterError, match="learning_rate='1e-4' is str"):
        read_parameters(notebook(parameters_cell(), '# Parameters\nlearning_rate = "1e-4"\n'))


def test_a_form_that_colab_has_hidden_is_still_checked():
    hidden = parameters_cell().replace("# @title Parameters", '# @title Parameters { display-mode: "form" }')
    with pytest.raises(ParameterError, match=r"did you mean epochs\?"):
        read_parameters(notebook(hidden + "\nepoch: int = 3"))
