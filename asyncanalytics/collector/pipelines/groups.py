"""The client's groups of settings as tables of a configuration: the same names, defaults and rules.

They are made from the groups themselves, so what is added there is known here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, create_model

from asyncanalytics import settings
from asyncanalytics.collector.pipelines.pointing import member_of, wrong
from asyncanalytics.errors import ConfigurationError
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
        try:
            group(**table.model_dump())
        except ConfigurationError as error:
            member = member_of(str(error), [group.__name__])
            if member is None or member[1] not in table.model_fields_set:
                raise
            raise wrong(member[1], str(error)) from None
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
