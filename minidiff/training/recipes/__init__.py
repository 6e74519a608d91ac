"""What `minidiff train NAME` trains, a file each."""

from dataclasses import replace

from minidiff.data import labelled
from minidiff.registry import discover
from minidiff.training.recipe import RECIPES, Recipe
from minidiff.training.recipes.mnist import labelled_recipe

__all__ = ["RECIPES", "Recipe", "recipes"]

discover(__name__)


def recipes() -> dict[str, Recipe]:
    """All that can be trained: RECIPES, and each labelled data set that has none of its own, as the digits are."""
    every = {name: labelled_recipe(name) for name in labelled()} | RECIPES
    return {name: replace(recipe, name=name) for name, recipe in every.items()}
