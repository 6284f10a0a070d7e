"""The parts of a recipe that say who teaches: several teachers, and assistants between sizes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from medsr.recipe.parts import Count, NetworkRecipe, NotNegative

_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class TeacherWeighting:
    """How the answers of several teachers become one.

    Attributes:
        by: ``validation_error``: in each domain (modality and contrast) by the teachers' errors on
            validation scans of that domain, measured once at the start; ``equal``: the plain mean.
        sharpness: Weights go with the mean squared error to minus this power: 0 is the plain mean,
            1 the inverse error, and the larger it is the more the best teacher speaks alone.

    Examples:
        >>> from medsr.recipe import TeacherWeighting
        >>> TeacherWeighting(by="validation_error", sharpness=1.0)  # by inverse mean squared errors
        TeacherWeighting(by='validation_error', sharpness=1.0)
    """

    by: Literal["validation_error", "equal"] = "validation_error"
    sharpness: NotNegative = 2.0


@dataclass(frozen=True, config=_CONFIG)
class AssistantRecipe:
    """A network of a size between teacher and student, which learns from the one and teaches on.

    Attributes:
        network: What is trained.
        name: What its folder and model are called; ``assistant`` where not given.
        steps: Optimiser steps; as many as the student takes where None.

    Examples:
        >>> from medsr.recipe import AssistantRecipe, NetworkRecipe
        >>> between = AssistantRecipe(NetworkRecipe("ResNet3D", {"width": 48}), steps=1000)
        >>> between.name
        'assistant'
    """

    network: NetworkRecipe
    name: Annotated[str, Field(pattern=r"^[\w-]+$")] = "assistant"
    steps: Count | None = None
