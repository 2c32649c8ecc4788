"""Orders about who may come in, and which orders are about whose tasks.

What `user` may do with its own tasks only is `keep_to_own`: one table says of every order which
tasks it is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from ..base.errors import Refusal
from ..base.replies import PAIR_COLUMNS, Reply
from ..base.text import escape
from ..tasks.task import Task, TaskSpec
from . import access_facts as af
from . import orders as o
from .access import (
    FILE_ADMIN,
    MAX_ACCOUNTS,
    MAX_LOGINS,
    MAX_LOGINS_EACH,
    MAX_SECRETS,
    MAX_TOKENS,
    RANK,
    WORKER,
    Access,
)
from .fires import MAX_NAMING
from .flows import find_flow_run, members_of
from .rules import Decision, Limits, Rule, Rules, check_limit
from .state import State

# --- orders ---


def _set_account(state: State, order: o.SetAccount, now: datetime, limits: Limits) -> Decision:
    access = state.access
    old = access.accounts.get(order.name)
    if order.is_new and old:
        raise Refusal("exists", f'an account "{order.name}" exists already', "name")
    if not order.is_new and old is None:
        raise _no_account(order.name)
    if order.is_first and access.accounts:
        raise Refusal("exists", "there is an account already, so this is not the first")
    if order.reset:
        check_offered(access, order.name, order.reset, now)
    if order.is_new:
        access.check_free(order.name)
    if old is None:
        check_limit(access.accounts, MAX_ACCOUNTS, "accounts")
    _check_unshared(access, order)
    base = old or af.AccountSet(order.name, "user", now)
    new = msgspec.structs.replace(base, **order.changes)
    if old and (new.disabled or new.role != "admin"):
        _keep_an_admin(access, old)
    reply = Reply(order.name, {"account": order.name})
    if order.shown:
        reply = Reply(order.name, {"account": order.name}, PAIR_COLUMNS, [("password", order.shown)])
    return Decision([new] if new != old else [], reply)


def _check_unshared(access: Access, order: o.SetAccount) -> None:
    """Raises Refusal where what tells whose an account is would be that of two."""
    uid, email = order.changes.get("uid"), order.changes.get("email")
    if uid is not None and access.by_uid.get(uid, order.name) != order.name:
        raise Refusal("exists", f'the uid {uid} is that of "{access.by_uid[uid]}" already', "uid")
    for other in access.mailed_at(email) if email else ():
        if other.name != order.name:
            raise Refusal("exists", f'the address {email} is that of "{other.name}" already', "email")


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
        why = f'"{leaving.name}" is the last admin that can come in; make another one first'
        raise Refusal("denied", why)


def _no_account(name: str, option: str = "") -> Refusal:
    return Refusal("not-found", f'no account "{escape(name[:80])}"', option)


def _add_token(state: State, order: o.AddToken, now: datetime, limits: Limits) -> Decision:
    access = state.access
    check_limit(access.tokens, MAX_TOKENS, "tokens")
    if order.name and not order.user and (order.name in access.accounts or order.name == FILE_ADMIN):
        why = f'an account is called "{order.name}"; say user={order.name} to speak for it'
        raise Refusal("exists", why, "name")
    role = order.role or (WORKER if order.worker else "user")
    if order.user:
        if (account := access.accounts.get(order.user)) is None:
            raise _no_account(order.user, "user")
        if role == WORKER:
            raise Refusal("bad-option", "a worker's token speaks for no account; leave user= out", "user")
        role = order.role or account.role
        if RANK[role] > RANK[account.role]:
            why = f'role=: "{order.user}" is {account.role}, and a token cannot be more'
            raise Refusal("bad-option", why, "role")
    if order.worker and role != WORKER:
        raise Refusal("bad-option", "worker= is for role=worker: which names a worker may bear", "worker")
    fact = af.TokenAdded(
        access.next_token, order.digest, role, now, order.name, order.user,
        (order.worker or "*") if role == WORKER else "", order.expires_at,
    )  # fmt: skip
    return Decision([fact], Reply(str(fact.id), {"id": fact.id}, PAIR_COLUMNS, [("token", order.shown)]))


def _revoke_token(state: State, order: o.RevokeToken, now: datetime, limits: Limits) -> Decision:
    if order.token not in state.access.tokens:
        raise Refusal("not-found", f"no token {order.token}")
    reply = Reply(f"{order.token} revoked", {"id": order.token, "revoked": True})
    return Decision([af.TokenRevoked(order.token)], reply)


def _begin_login(state: State, order: o.BeginLogin, now: datetime, limits: Limits) -> Decision:
    access = state.access
    account = access.accounts.get(order.name)
    if account is None or account.disabled:
        raise _no_account(order.name)
    over = [each.id for each in access.logins.values() if each.expires_at <= now]
    living = [each for each in access.logins.values() if each.expires_at > now]
    numbers, whose = Counter(each.user for each in living), ""
    if numbers[order.name] >= MAX_LOGINS_EACH:
        whose = order.name
    elif len(living) >= MAX_LOGINS:  # those of whoever has most, so that nobody keeps others out
        whose = max(numbers, key=lambda user: numbers[user])
    if whose:
        theirs = (each for each in living if each.user == whose)
        over.append(min(theirs, key=lambda each: each.renewed_at or each.created_at).id)
    fact = af.LoginSet(
        access.next_login, order.name, order.family, order.digest, now, order.expires_at, order.address,
        over=over,
    )  # fmt: skip
    return Decision([fact], Reply(str(fact.id), {"id": fact.id}, PAIR_COLUMNS, [("token", order.shown)]))


def _renew_login(state: State, order: o.RenewLogin, now: datetime, limits: Limits) -> Decision:
    old = state.access.logins[order.login]
    role = state.access.accounts[old.user].role
    expires_at = now + (old.expires_at - (old.renewed_at or old.created_at))
    fact = msgspec.structs.replace(
        old, digest=order.digest, expires_at=expires_at, renewed_at=now, address=order.address
    )
    values = {"id": old.id, "name": old.user, "role": role}
    reply = Reply(f"{old.id} {old.user} role={role}", values, PAIR_COLUMNS, [("token", order.shown)])
    return Decision([fact], reply)


def _end_login(state: State, order: o.EndLogin, now: datetime, limits: Limits) -> Decision:
    if order.token not in state.access.logins:
        raise Refusal("not-found", f"no session {order.token}")
    reply = Reply(f"{order.token} ended", {"id": order.token, "ended": True})
    return Decision([af.LoginEnded(order.token)], reply)


def _offer_reset(state: State, order: o.OfferReset, now: datetime, limits: Limits) -> Decision:
    rows = [("token", order.shown), ("email", state.access.accounts[order.name].email or None)]
    reply = Reply(order.name, {"account": order.name}, PAIR_COLUMNS, rows)
    return Decision([af.ResetOffered(order.name, order.digest, order.expires_at)], reply)


def check_offered(access: Access, name: str, digest: str, now: datetime) -> None:
    """Raises Refusal unless this is the word that was offered for it, and it counts yet."""
    offered = access.resets.get(name)
    if offered is None or offered.digest != digest or offered.expires_at <= now:
        raise Refusal("denied", "the word is not the right one, was used, or has expired")


def _put_secret(state: State, order: o.PutSecret, now: datetime, limits: Limits) -> Decision:
    known = state.access.secrets
    if order.name not in known:
        check_limit(known, MAX_SECRETS, "secrets")
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


ACCESS: Rules = {
    o.SetAccount: Rule(_set_account, "USER"),
    o.RemoveAccount: Rule(_remove_account, "USER"),
    o.AddToken: Rule(_add_token, "TOKEN"),
    o.RevokeToken: Rule(_revoke_token, "TOKEN"),
    o.BeginLogin: Rule(_begin_login, "SESSION"),
    o.RenewLogin: Rule(_renew_login),
    o.EndLogin: Rule(_end_login, "SESSION"),
    o.OfferReset: Rule(_offer_reset, "USER"),
    o.PutSecret: Rule(_put_secret, "SECRET"),
    o.RemoveSecret: Rule(_remove_secret, "SECRET"),
}


# --- what is one's own ---

Whose = tuple[str, str]  # whose a task is, and its name
About = Iterable[str | o.Pattern | Whose | None]  # None = all tasks


def owner_of(state: State, spec: TaskSpec) -> str:
    return spec.options.owner or state.common.owner


def keep_to_own(state: State, order: Any, owner: str) -> Generator[None, None, Any]:
    """The order, as somebody may give it who has rights to its own tasks only; looked at in small steps.

    tag= and name= choose among those. Raises Refusal (`denied`) for what is another's, and for an order
    of which `_NAMED` does not say what it is about; what is not there at all is left to whoever looks for it.
    """
    named = _NAMED.get(type(order))
    if named is None:
        raise Refusal("denied", "it is not about tasks of your own alone")
    if isinstance(order, o.UndoChanges):
        _check_made_by(state, order, owner)
    about = named(state, order)
    if isinstance(order, o.StartFlow):
        about = yield from _hanging_together(state, order.ref)
    for ref in about:
        yield
        if isinstance(ref, o.Pattern) and ref.flow:
            yield from keep_to_own(state, o.StartFlow(ref.flow, {}), owner)
        elif isinstance(ref, o.Pattern):
            owners = (owner, None) if owner == state.common.owner else (owner,)
            return msgspec.structs.replace(order, ref=msgspec.structs.replace(ref, owners=owners))
        elif ref is None:
            raise Refusal("denied", "all tasks are not yours; tag= and name= choose among those that are")
        task = state.find(ref) if isinstance(ref, str) else None
        whose = ref if isinstance(ref, tuple) else task and (owner_of(state, task.spec), task.name)
        if whose and whose[0] != owner:
            raise Refusal("denied", f'"{whose[1]}" belongs to {whose[0]}')
        if task:
            yield from check_reach(state, order, task, owner)
    return order


def check_reach(
    state: State, order: Any, task: Task, owner: str, leaving: Container[int] = ()
) -> Generator[None, None, None]:
    """Raises Refusal (`denied`) where an order about somebody's own task does what he may not elsewhere."""
    if isinstance(order, o.SetTask) and "user" not in order.words:  # who says another user is refused anyway
        user = task.spec.record.get("user", owner)
        if user != owner:
            why = f'"{task.name}" runs as {user}, so it stays as it is; or say user= as well'
            raise Refusal("denied", why)
    if isinstance(order, o.RemoveTask) and order.force:
        for waiting in sorted(state.dependents.get(task.name, ())):
            yield
            if (other := state.tasks.get(waiting)) is None or waiting in leaving:
                continue
            spec = other.spec
            if owner_of(state, spec) != owner:
                raise Refusal("denied", f'"{spec.name}" waits for it, and belongs to {owner_of(state, spec)}')


def _check_made_by(state: State, order: o.UndoChanges, owner: str) -> None:
    since_at = state.access.created_at(owner)
    for change in state.changes.newest(order.count):
        is_own = (change.who or "").startswith(f"{owner}@") and since_at and change.at >= since_at
        if not is_own:
            raise Refusal("denied", f"the change {change.number} was not made by {owner}: {change.what}")


def _undone(state: State, order: o.UndoChanges) -> About:
    """Whose the tasks are today, and whose they were and would be again."""
    for change in state.changes.newest(order.count):
        for step in change.steps:
            if step.kind == "template":
                raise Refusal("denied", f"the change {change.number} was of a template")
            if task := state.tasks.get(step.id):
                yield owner_of(state, task.spec), task.name
            then = step.was.definition if step.was else None
            if isinstance(then, TaskSpec):
                yield owner_of(state, then), then.name
            elif then is not None:
                yield then.get("owner") or state.common.owner, str(then.get("jobName"))


def _of_run(state: State, order: o.CancelRun) -> About:
    """Its task may be gone."""
    if run := state.runs.get(order.run):
        yield str(run.task_id) if run.task_id in state.tasks else (owner_of(state, run.spec), run.spec.name)


def _added(state: State, order: o.AddTask) -> About:
    return (order.spec.name,) if order.replace and order.spec.name else ()


def _ref(state: State, order: Any) -> About:
    return order.ref if isinstance(order.ref, tuple) else (order.ref,)


def _hanging_together(state: State, ref: str) -> Generator[None, None, About]:
    """A run of a flow is a run of every task of it."""
    with suppress(Refusal):  # it is not there, and whoever looks for it says so
        members = yield from members_of(state, ref)
        return map(str, members)
    return ()


def _flow_run(state: State, order: Any) -> About:
    with suppress(Refusal):
        return map(str, find_flow_run(state, order.ref, order.number).members)
    return ()


# The tasks that an order is about.
_NAMED: dict[type, Callable[[State, Any], About]] = {
    o.ReceiveBeat: lambda state, order: (),
    o.AddTask: _added,
    o.SetTask: _ref,
    o.RemoveTask: _ref,
    o.RunTask: _ref,
    o.RollBack: _ref,
    o.PauseTasks: _ref,
    o.ResumeTasks: _ref,
    o.CancelRun: _of_run,
    o.EmitEvent: lambda state, order: map(str, islice(state.listeners.get(order.event, ()), MAX_NAMING)),
    o.StartFlow: lambda state, order: (),  # those that hang together, which are found in steps
    o.RetryFlow: _flow_run,
    o.StopFlow: _flow_run,
    o.UndoChanges: _undone,
}
