"""`sonew sign`."""

from __future__ import annotations

from pathlib import Path

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._say import note, output_options, print_json
from sonew_compiled.install import require


@click.command("sign", short_help="Sign a bundle with a key.")
@options.bundle_argument
@click.option("--key", type=options.PATH, required=True, help="File of an Ed25519 private key in PEM.")
@output_options
def sign_command(bundle: Path, key: Path, as_json: bool) -> None:
    """Sign a bundle, for machines that run only what a trusted key has signed.

    The signature is manifest.sig in the bundle. `openssl genpkey -algorithm ed25519 -out key.pem` makes a key, and
    `openssl pkey -in key.pem -pubout` gives the public half.

    \b
    Examples:
      sonew sign ae.bundle --key key.pem
      sonew run ae.bundle --trusted-keys keys.pem
    """
    require("sign", purpose="sonew sign")
    from sonew_compiled.runtime.signature import sign_bundle

    signature = sign_bundle(bundle, key)
    if as_json:
        print_json({"bundle": bundle, "signature": signature})
    note(f"wrote {signature}")
