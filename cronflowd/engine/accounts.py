"""Orders about who may come in, and which orders are about whose tasks.

What `user` may do with its own tasks only is `keep_to_own`: one table says of every order which
tasks it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from ..base.errors import Refusal
from ..base.replies import Reply
from ..base.text import escape
from . import access_facts as af
from . import orders as o
from .access import MAX_ACCOUNTS, MAX_SECRETS, MAX_TOKENS, RANK, WORKER, Access
from .rules import Decision, Limits, Rule, Rules
from .state import State

# --- orders ---


def _set_account(state: State, order: o.SetAccount, now: datetime, limits: Limits) -> Decision:
    access = state.access
    old = access.accounts.get(order.name)
    if order.is_new and old:
        raise Refusal("exists", f'an account "{order.name}" exists already')
    if not order.is_new and old is None:
        raise _no_account(order.name)
    if old is None and len(access.accounts) >= MAX_ACCOUNTS:
        raise Refusal("limit", f"there are {MAX_ACCOUNTS} accounts already, which is the limit")
    if (uid := order.changes.get("uid")) is not None and access.by_uid.get(uid, order.name) != order.name:
        raise Refusal("exists", f'the uid {uid} is that of "{access.by_uid[uid]}" already')
    base = old or af.AccountSet(order.name, "user", now)
    new = msgspec.structs.replace(base, **order.changes, who=None)
    if old and (new.disabled or new.role != "admin"):
        _keep_an_admin(access, old)
    reply = Reply(order.name, {"account": order.name})
    if order.shown:
        reply = Reply(order.name, {"account": order.name}, ("key", "value"), [("password", order.shown)])
    return Decision([new] if new != old else [], reply)


def _remove_account(state: State, order: o.RemoveAccount, now: datetime, limits: Limits) -> Decision:
    old = state.access.accounts.get(order.name)
    if old is None:
        raise _no_account(order.name)
    _keep_an_admin(state.access, old)
    reply = Reply(order.name, {"account": order.name, "removed": True})
    return Decision([af.AccountRemoved(order.name)], reply)


def _keep_an_admin(access: Access, leaving: af.AccountSet) -> None:
    def is_admin(account: af.AccountSet) -> bool:
        return account.role == "admin" and not account.disabled

    if is_admin(leaving) and sum(map(is_admin, access.accounts.values())) == 1:
        raise Refusal(
            "denied", f'"{leaving.name}" is the last admin that can come in; make another one first'
        )


def _no_account(name: str) -> Refusal:
    return Refusal("not-found", f'no account "{escape(name[:80])}"')


def _add_token(state: State, order: o.AddToken, now: datetime, limits: Limits) -> Decision:
    access = state.access
    if len(access.tokens) >= MAX_TOKENS:
        raise Refusal("limit", f"there are {MAX_TOKENS} tokens already, which is the limit")
    role = order.role or (WORKER if order.worker else "user")
    if order.user:
        if (account := access.accounts.get(order.user)) is None:
            raise _no_account(order.user)
        if role == WORKER:
            raise Refusal("bad-option", "a worker's token speaks for no account; leave user= out")
        role = order.role or account.role
        if RANK[role] > RANK[account.role]:
            raise Refusal(
                "bad-option", f'role=: "{order.user}" is {account.role}, and a token cannot be more'
            )
    if order.worker and role != WORKER:
        raise Refusal("bad-option", "worker= is for role=worker: which names a worker may bear")
    fact = af.TokenAdded(
        access.next_token, order.digest, role, now, order.name, order.user,
        (order.worker or "*") if role == WORKER else "", order.expires_at,
    )  # fmt: skip
    reply = Reply(str(fact.id), {"id": fact.id}, ("key", "value"), [("token", order.shown)])
    return Decision([fact], reply)


def _revoke_token(state: State, order: o.RevokeToken, now: datetime, limits: Limits) -> Decision:
    if order.token not in state.access.tokens:
        raise Refusal("not-found", f"no token {order.token}")
    reply = Reply(f"{order.token} revoked", {"id": order.token, "revoked": True})
    return Decision([af.TokenRevoked(order.token)], reply)


def _put_secret(state: State, order: o.PutSecret, now: datetime, limits: Limits) -> Decision:
    known = state.access.secrets
    if order.name not in known and len(known) >= MAX_SECRETS:
        raise Refusal("limit", f"there are {MAX_SECRETS} secrets already, which is the limit")
    reply = Reply(order.name, {"secret": order.name})
    return Decision([af.SecretPut(order.name, order.sealed, now)], reply)


def _remove_secret(state: State, order: o.RemoveSecret, now: datetime, limits: Limits) -> Decision:
    if order.name not in state.access.secrets:
        raise Refusal("not-found", f'no secret "{escape(order.name[:80])}"')
    if (used := state.wanted.get(order.name)) and not order.force:
        first = state.tasks[min(used)].name
        who = f'"{first}" names it' if len(used) == 1 else f'"{first}" and {len(used) - 1} more name it'
        raise Refusal("busy", f"{who}; with force=yes their runs fail until it is put again")
    reply = Reply(f"{order.name} removed", {"secret": order.name, "removed": True})
    return Decision([af.SecretRemoved(order.name)], reply)


def _sign_in(state: State, order: o.SignIn, now: datetime, limits: Limits) -> Decision:
    return Decision([af.SignedIn(order.name, order.role, order.address, order.token, order.is_account)])


def _refuse(state: State, order: o.NoteRefusal, now: datetime, limits: Limits) -> Decision:
    return Decision([af.Refused(order.who, order.address, order.verb, order.ref, order.why, order.untold)])


ACCESS: Rules = {
    o.SetAccount: Rule(_set_account, "USER"),
    o.RemoveAccount: Rule(_remove_account, "USER"),
    o.AddToken: Rule(_add_token, "TOKEN"),
    o.RevokeToken: Rule(_revoke_token, "TOKEN"),
    o.PutSecret: Rule(_put_secret, "SECRET"),
    o.RemoveSecret: Rule(_remove_secret, "SECRET"),
    o.SignIn: Rule(_sign_in),
    o.NoteRefusal: Rule(_refuse),
}


# --- what is one's own ---


def owner_of(state: State, ref: str) -> tuple[str, str] | None:
    """(whose a task is, its name); None where there is no such task."""
    task = state.find(ref)
    return None if task is None else (task.spec.options.owner or state.common.owner, task.name)


def keep_to_own(state: State, order: Any, owner: str) -> Any:
    """The order, as somebody may give it who has rights to its own tasks only.

    tag= and name= choose among those. Raises Refusal (`denied`) for what is another's; what is not
    there at all is left to whoever looks for it.
    """
    if isinstance(order, o.UndoChanges):
        for change in state.changes.newest(order.count):
            if not (change.who or "").startswith(f"{owner}@"):
                raise Refusal("denied", f"the change {change.number} was not made by {owner}: {change.what}")
    named = _NAMED.get(type(order))
    if named is None:
        return order
    for ref in named(state, order):
        if isinstance(ref, o.Pattern):
            field = "refs" if hasattr(order, "refs") else "ref"
            return msgspec.structs.replace(order, **{field: msgspec.structs.replace(ref, owner=owner)})
        if ref is None:
            raise Refusal("denied", "all tasks are not yours; tag= and name= choose among those that are")
        found = owner_of(state, ref)
        if found and found[0] != owner:
            raise Refusal("denied", f'"{found[1]}" belongs to {found[0]}')
    return order


def _of_run(state: State, order: o.CancelRun) -> Iterable[str]:
    run = state.runs.get(order.run)
    return () if run is None else (str(run.task_id),)


def _added(state: State, order: o.AddTask) -> Iterable[str]:
    return (order.spec.name,) if order.replace and order.spec.name else ()


def _refs(state: State, order: Any) -> Iterable[str | o.Pattern | None]:
    refs = order.refs
    return refs if isinstance(refs, tuple) else (refs,)


def _ref(state: State, order: Any) -> Iterable[str | o.Pattern]:
    return (order.ref,)


def _listening(state: State, order: o.EmitEvent) -> Iterable[str]:
    return map(str, state.listeners.get(order.event, ()))


# The tasks that an order is about.
_NAMED: dict[type, Callable[[State, Any], Iterable[str | o.Pattern | None]]] = {
    o.AddTask: _added,
    o.SetTask: _ref,
    o.RemoveTask: _ref,
    o.RunTask: _ref,
    o.RollBack: _ref,
    o.PauseTasks: _refs,
    o.ResumeTasks: _refs,
    o.CancelRun: _of_run,
    o.EmitEvent: _listening,
}
