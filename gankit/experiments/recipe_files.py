"""The TOML files of recipes with fixed settings, and facts about all recipes."""

from importlib import resources

from gankit import recipes
from gankit.errors import PartError, SettingsError, suggestion
from gankit.registry.messages import shown
from gankit.registry.plugins import shipped_hint
from gankit.terminal.text import as_columns

RECIPES = resources.files("gankit.recipes")
DEFAULT_RECIPE = "wgan-gp"
"""The recipe that supplies the tables missing from an experiment."""


def fixed_recipe_names() -> list[str]:
    """The names of the recipes with fixed settings, which are files."""
    return sorted(file.name.removesuffix(".toml") for file in RECIPES.iterdir() if file.name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """The TOML text of a recipe with fixed settings; raises SettingsError if there is none of this name."""
    if name not in fixed_recipe_names():
        reason = shipped_hint("recipe", name) or suggestion(name, [*fixed_recipe_names(), *recipes.names()])
        raise SettingsError(f"there is no recipe or file {shown(name)}; {reason}")
    return (RECIPES / f"{name}.toml").read_text(encoding="utf-8")


def recipe_facts(name: str) -> dict[str, str]:
    """Facts about a recipe by key: its purpose ("For"), its image sizes ("Sizes"), the time of a training ("Time")."""
    if name not in fixed_recipe_names():
        recipe = recipes.get(name)
        least, most = recipe.sides
        return {"For": recipe.purpose, "Sizes": f"{least}x{least} to {most}x{most}", "Time": recipe.time}
    # A recipe that is a file has them as comments, such as "# For: ...".
    lines = (line.removeprefix("# ").partition(": ") for line in recipe_text(name).splitlines())
    return {key: text for key, _, text in lines if key in ("For", "Sizes", "Time")}


def recipe_lines() -> list[str]:
    """A table in text with one line per recipe: its name and its `recipe_facts`."""
    rows = [("recipe", "sizes", "time of the whole training", "for")]
    for name in sorted([*fixed_recipe_names(), *recipes.names()]):
        try:
            facts = recipe_facts(name)
        except PartError as error:  # of a plug-in
            facts = {"Sizes": "", "Time": "", "For": f"fails: {error}"}
        rows.append((name, facts["Sizes"], facts["Time"], facts["For"]))
    return as_columns(rows)
