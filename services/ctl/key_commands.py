"""`tracerctl keys`: whose signatures count, and what the trainer signs with."""

from __future__ import annotations

import base64
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from services.ctl.output import console, fail, print_json, print_table
from services.ctl.registry_access import Json, TaskArgument, open_registry
from shared.clock import SystemClock
from shared.registry.keyring import InvalidKeyring, TrustedKey, read_keyring, write_keyring
from shared.registry.signatures import InvalidKey, Signer

app = typer.Typer(
    help="Signing keys: new, list, trust, revoke, rotate, sign.", no_args_is_help=True
)
KEYRING, SIGNING_KEY = "trusted.json", "signing.pem"

Folder = Annotated[
    Path, typer.Option(help=f"Holds {KEYRING}, for everyone, and {SIGNING_KEY}, for the trainer.")
]
Note = Annotated[str, typer.Option(help="Kept with the key, for people.")]
DEFAULT = Path("data/keys")


@app.command()
def new(
    folder: Folder = DEFAULT,
    note: Note = "",
    if_absent: Annotated[bool, typer.Option(help="Do nothing when there is one.")] = False,
    json: Json = False,
) -> None:
    """Make the first key, and trust it."""
    if (folder / SIGNING_KEY).exists():
        if not if_absent:
            fail(f"{folder / SIGNING_KEY} is there already; `tracerctl keys rotate` replaces it")
        if json:
            print_json({"key": None, "made": False})
        return
    signer = make_key(folder, note)
    if json:
        print_json({"key": signer.key_id, "made": True})
        return
    console.print(f"made and trusted {signer.key_id}.")
    console.print(f"trainer: TRACER_SIGNING_KEY_FILE={folder / SIGNING_KEY}")
    console.print(f"trainer, routers, tracerctl: TRACER_TRUSTED_KEYS={folder / KEYRING}")


@app.command()
def rotate(folder: Folder = DEFAULT, note: Note = "", json: Json = False) -> None:
    """A new key to sign with; the old one stays trusted until it is revoked."""
    if not (folder / SIGNING_KEY).exists():
        fail(f"there is no {folder / SIGNING_KEY} to replace; see `tracerctl keys new`")
    signer = make_key(folder, note)
    if json:
        print_json({"key": signer.key_id, "made": True})
        return
    console.print(f"new versions are signed by {signer.key_id} once the trainer is restarted.")
    console.print("Then `tracerctl keys sign TASK` and `tracerctl keys revoke` the old one.")


@app.command("list")
def list_keys(folder: Folder = DEFAULT, json: Json = False) -> None:
    """The trusted keys and the revoked ones, oldest first."""
    rows = [
        {"id": key, "added": trusted.added.isoformat(timespec="seconds"),
         "revoked": trusted.revoked.isoformat(timespec="seconds") if trusted.revoked else None,
         "public": trusted.public, "note": trusted.note}
        for key, trusted in _keyring(folder).items()
    ]  # fmt: skip
    if json:
        print_json(rows)
        return
    columns = ["id", "added", "revoked", "public", "note"]
    print_table("keys", columns, [[row[name] or "" for name in columns] for row in rows])


@app.command()
def trust(
    public: Annotated[str, typer.Argument(help="The base64 that `list` shows of it there.")],
    folder: Folder = DEFAULT,
    note: Note = "",
    json: Json = False,
) -> None:
    """Trust another trainer's key."""
    keys = _keyring(folder) if (folder / KEYRING).exists() else {}
    key = TrustedKey(public=public, added=_now(), note=note)
    try:
        name = key.id
    except InvalidKey as error:
        fail(str(error), code=2)
    if name in keys and keys[name].revoked:
        fail(f"{name} was revoked and does not come back; make another with `keys rotate`")
    if name not in keys:
        write_keyring(folder / KEYRING, {**keys, name: key})
    _done(json, {"key": name, "trusted": True}, f"{name} is trusted.")


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its id.")],
    folder: Folder = DEFAULT,
    json: Json = False,
) -> None:
    """From now on nothing signed by it is loaded; for ever."""
    keys = _keyring(folder)
    if key not in keys:
        fail(f"there is no key {key}; see `tracerctl keys list`")
    if keys[key].revoked is None:
        gone = TrustedKey(public=keys[key].public, added=keys[key].added, note=keys[key].note,
                          revoked=_now())  # fmt: skip
        write_keyring(folder / KEYRING, {**keys, key: gone})
    _done(
        json,
        {"key": key, "revoked": True},
        f"{key} is revoked. Restart routers: what they have loaded stays until then.",
    )


@app.command()
def sign(
    task: TaskArgument,
    version: Annotated[str | None, typer.Argument(help="Default: every stored one.")] = None,
    folder: Folder = DEFAULT,
    unsigned: Annotated[
        bool, typer.Option(help="Also what nobody signed: your word that it is genuine.")
    ] = False,
    json: Json = False,
) -> None:
    """Sign stored versions with the key of the folder, as after a rotation."""
    try:
        signer = Signer.from_pem((folder / SIGNING_KEY).read_text())
    except OSError as error:
        fail(f"{folder / SIGNING_KEY}: {error.strerror}")
    except InvalidKey as error:
        fail(f"{folder / SIGNING_KEY} is {error}")
    with open_registry(keyring=folder / KEYRING, signer=signer) as (registry, _):
        versions = [version] if version else registry.versions(task)
        for each in versions:
            registry.resign(task, each, unsigned=unsigned)
    _done(
        json,
        {"task": task, "signed": versions, "key": signer.key_id},
        f"{task}: {len(versions)} versions signed by {signer.key_id}.",
    )


def _done(json: bool, result: dict[str, object], said: str) -> None:
    if json:
        print_json(result)
    else:
        console.print(said)


def make_key(folder: Path, note: str = "") -> Signer:
    """A key in `folder`, trusted by its keyring. Raises OSError or InvalidKeyring."""
    signer = Signer.make()
    folder.mkdir(parents=True, exist_ok=True)
    keys = read_keyring(folder / KEYRING) if (folder / KEYRING).exists() else {}
    public = base64.b64encode(signer.public).decode("ascii")
    keys[signer.key_id] = TrustedKey(public=public, added=_now(), note=note)
    write_keyring(folder / KEYRING, keys)  # first: a key that nobody trusts must not sign
    _write_private(folder / SIGNING_KEY, signer.pem())
    return signer


def _write_private(path: Path, data: bytes) -> None:
    """As a whole, and never readable by others, not even for a moment."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    part.replace(path)


def _keyring(folder: Path) -> dict[str, TrustedKey]:
    try:
        return read_keyring(folder / KEYRING)
    except InvalidKeyring as error:
        fail(f"{error}; `tracerctl keys new` makes one")


def _now() -> datetime:
    return SystemClock().now()
