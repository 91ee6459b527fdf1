"""The records of optimizers: their consistency, and the documents, options and settings made from them."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import click
import generated
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew_compiled.bench._traffic import update_bytes
from sonew_compiled.cli import _main
from sonew_compiled.errors import UsageError
from sonew_compiled.optimizer import optimizer_factory, sonew
from sonew_compiled.presets import (
    OPTIMIZERS,
    PRECISIONS,
    RECORDS,
    SETTINGS,
    OptimizerSettings,
    optimizer_settings,
)
from sonew_compiled.setting import Setting, flag_of

ROOT = Path(__file__).parents[2]
each = pytest.mark.parametrize("name", OPTIMIZERS)


@each
def test_a_record_ships_what_it_accepts(name: str) -> None:
    record = RECORDS[name]
    assert record.learning_rate > 0
    assert record.rates.keys() <= set(PRECISIONS)
    assert record.paper
    assert record.state
    for setting in record.settings:
        if setting.default is not None:
            setting.check(setting.default)
        assert setting.name not in record.fixed
        assert setting.search > 1 or not setting.at_run_time, "sonew tune searches it"


@each
def test_a_factory_takes_what_its_record_names(name: str) -> None:
    record = RECORDS[name]
    module, _, function = record.factory.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    needed = {"loss"} if record.needs_loss else set()
    needed |= {"batch"} if record.needs_layers else set()
    assert {"learning_rate", *record.values, *needed} <= parameters.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_several_optimizers_is_one_option(name: str) -> None:
    found = [setting for record in RECORDS.values() if (setting := record.setting(name))]
    assert len({(setting.kind, setting.help, setting.from_one) for setting in found}) == 1
    for command in ("run", "compile", "bench", "tune"):
        options = [each for each in _main.sonew.commands[command].params if flag_of(name) in each.opts]
        assert len(options) == 1, f"`sonew {command}` has {flag_of(name)} {len(options)} times"
        assert isinstance(options[0], click.Option)
        # A command keeps the names of its help option, `-h` among them, from the first context that it sees.
        whole = click.Context(_main.sonew, info_name="sonew", **_main.sonew.context_settings)
        made = _main.sonew.commands[command].make_context(command, [], parent=whole)
        assert made.params[name] is None, "what ships is used"
        assert found[0].help.removesuffix(".") in str(options[0].help)


# Optimizers whose state has so many numbers for each parameter, for tensors of any shape.
COUNTED = {
    name: sum(map(int, record.state.replace("`band`", "4").replace("`rank`", "4").split(" + ")))
    for name, record in RECORDS.items()
    if re.fullmatch(r"\d( \+ `\w+`)?", record.state) and not record.needs_loss
}


@pytest.mark.parametrize("name", COUNTED)
def test_the_state_is_as_large_as_its_record_says(name: str) -> None:
    """The state of a 6 by 4 matrix agrees with the record."""
    params = {"w": jnp.zeros((6, 4))}
    state = jax.eval_shape(optimizer_factory(optimizer_settings(name))(0.1).init, params)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.size > 1)
    # rfdson keeps a few more numbers for each tensor.
    assert numbers // 24 == COUNTED[name]


def test_a_grafted_update_reads_its_state_twice() -> None:
    assert {name for name, record in RECORDS.items() if record.grafted} == {"diag-sonew", "tridiag-sonew", "band-sonew"}
    for name in OPTIMIZERS:
        passes = 3 if RECORDS[name].grafted else 2
        assert update_bytes(name, parameters=1, state=100, gradients=10) == 12 + 100 * passes
    ungrafted = update_bytes("diag-sonew", parameters=1, state=100, gradients=10, settings={"grafting": "none"})
    assert ungrafted == 12 + 100 * 2


def test_the_settings_of_sonew_are_its_arguments() -> None:
    given: dict[str, Any] = {
        "grafting": "none",
        "eps_mode": "absolute",
        "rank1": "sonew",
        "flatten": "row",
        "tolerance": 1e-3,
    }
    ours = optimizer_factory(optimizer_settings("band-sonew", band=2, eps=1e-2, **given))(0.1)
    plain = sonew(0.1, band=2, b1=0.9, b2=0.95, eps=1e-2, **given)
    grafted = optimizer_factory(optimizer_settings("band-sonew", band=2, eps=1e-2))(0.1)
    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    gradients = jax.tree.map(lambda each: jnp.cos(jnp.arange(each.size, dtype=each.dtype)).reshape(each.shape), params)
    first, second, other = (tx.update(gradients, tx.init(params), params)[0] for tx in (ours, plain, grafted))
    for name, update in first.items():
        np.testing.assert_array_equal(update, second[name])
        assert not np.allclose(update, other[name], rtol=0.1)


def test_the_document_has_a_row_for_each_record() -> None:
    document = generated.filled((ROOT / "docs/reference/optimizers.md").read_text(encoding="utf-8"))
    table = {cells[0]: cells[1:] for cells in re.findall(r"^\| `(.+?)` \| (.*?) \| (.*?) \| (.*?) \|", document, re.M)}
    assert set(OPTIMIZERS) <= table.keys()
    assert table["band-sonew"] == ("SONew, 2023, arXiv 2311.10085", "2 + `band`", "0.007, 0.013 in `bf16`")
    assert table["adam"] == ("Kingma and Ba 2014, arXiv 1412.6980", "2", "0.0007")


def test_settings_are_one_flat_object_and_cannot_be_changed() -> None:
    settings = optimizer_settings("band-sonew", precision="bf16", band=2)
    described = {"name": "band-sonew", "learning_rate": 1.3e-2, "b1": 0.9, "b2": 0.95, "eps": 1e-6, "band": 2}
    described |= {"eps_mode": "relative", "grafting": "adam", "rank1": "adam", "flatten": "column"}
    assert settings.to_json() == described
    assert OptimizerSettings.from_json({**described, "rank": None}) == settings
    assert OptimizerSettings(name="sgd", learning_rate=0.1).values == {}
    with pytest.raises(TypeError):
        settings.values["band"] = 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("lion", {}, "unknown optimizer 'lion'; give one of diag-sonew, "),
        ("adam", {"beta1": 0.9}, "--beta1 0.9 does not go with adam, which takes --b1, --b2, --eps; leave it out"),
        ("band-sonew", {"band": 2.5}, "--band is 2.5; give a whole number"),
        ("band-sonew", {"band": True}, "--band is True; give a whole number"),
        ("band-sonew", {"band": 10**400}, "give a whole number"),
        ("adam", {"b1": "much"}, "--b1 is 'much'; give a decay in [0, 1)"),
        ("tridiag-sonew", {"band": 2}, "--band 2 does not go with tridiag-sonew"),
        ("kbfgs", {"eps": 1.0}, "--eps is 1.0; give a positive number of float32 below 1.0, such as 0.3"),
        ("tridiag-sonew", {"grafting": "lion"}, "--grafting is 'lion'; give one of adam, sgd, momentum, rmsprop, none"),
        ("tridiag-sonew", {"tolerance": 1.0}, "--tolerance is 1.0; give a number in [0, 1), such as 1e-6"),
        ("adam", {"flatten": "row"}, "leave it out, or give --optimizer diag-sonew or tridiag-sonew or band-sonew"),
        ("schedule-free-adamw", {"b1": 0.0}, "--b1 is 0.0; give a decay in (0, 1), such as 0.9"),
    ],
)
def test_what_is_no_setting_is_refused(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        optimizer_settings(name, **given)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_word_is_one_of_its_choices() -> None:
    setting = Setting(name="shape", kind=str, choices=("round", "flat"), accepted="round or flat", help="The shape.")
    setting.check("flat")
    with pytest.raises(UsageError, match="--shape is 'high'; give round or flat"):
        setting.check("high")
