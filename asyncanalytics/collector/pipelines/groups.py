"""The client's groups of settings as tables of a configuration: the same names, defaults and rules.

They are made from the groups themselves, so what is added there is known here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, create_model

from asyncanalytics import settings
from asyncanalytics.settings import Batching, Queueing, Retrying, Sending


def _table(group: type[Any], *left_out: str) -> Any:
    """Make the type of a table that becomes a group of settings."""
    members: dict[str, Any] = {
        each.name: (each.type, each.default) for each in fields(group) if each.name not in left_out
    }
    model = create_model(
        f"{group.__name__}Table",
        __config__=ConfigDict(extra="forbid", hide_input_in_errors=True, strict=False),
        __module__=settings.__name__,  # where the names in its annotations are
        **members,
    )

    def check(table: BaseModel) -> BaseModel:
        group(**table.model_dump())  # raises what is wrong with it as a whole
        return table

    return Annotated[model, AfterValidator(check)]


def given(table: BaseModel | None) -> dict[str, Any]:
    """Return what a table says, without the defaults."""
    return {} if table is None else table.model_dump(exclude_unset=True)


if TYPE_CHECKING:
    BatchingTable: TypeAlias = BaseModel
    QueueingTable: TypeAlias = BaseModel
    RetryingTable: TypeAlias = BaseModel
    SendingTable: TypeAlias = BaseModel
else:
    BatchingTable = _table(Batching)
    QueueingTable = _table(Queueing)
    RetryingTable = _table(Retrying)
    SendingTable = _table(Sending, "http_client")
