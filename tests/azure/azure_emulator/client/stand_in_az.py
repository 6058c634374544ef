"""A stand-in for the Azure CLI: what AzureCliCredential asks of it, and `az account show`.

With AZURE_EMULATOR_LOGGED_OUT set it answers as after `az logout`, or with that variable's AADSTS error.
Tokens live for AZURE_EMULATOR_TOKEN_SECONDS. It stands alone: the emulator copies it into its state folder,
with the ids filled in.
"""

import base64
import json
import os
import sys
import time


def token(audience: str, expires: int) -> str:
    def encode(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {
        "aud": audience,
        "tid": "TENANT_ID",
        "oid": "22222222-2222-2222-2222-222222222222",
        "upn": "user@emulator.invalid",
        "exp": expires,
    }
    return f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(claims)}.unsigned"


def option(arguments: list[str], *names: str) -> str:
    return next((arguments[arguments.index(name) + 1] for name in names if name in arguments), "")


def main(arguments: list[str]) -> object:
    if logged_out := os.environ.get("AZURE_EMULATOR_LOGGED_OUT", ""):
        why = f"{logged_out}\n" if logged_out.startswith("AADSTS") else ""
        sys.exit(f"ERROR: {why}Please run 'az login' to setup account.")
    if arguments[:2] == ["account", "show"]:
        return {
            "id": "SUBSCRIPTION_ID",
            "name": "Emulated subscription",
            "state": "Enabled",
            "isDefault": True,
            "tenantId": "TENANT_ID",
            "environmentName": "AzureCloud",
            "user": {"name": "user@emulator.invalid", "type": "user"},
        }
    if arguments[:2] == ["account", "get-access-token"]:
        expires = int(time.time()) + int(os.environ.get("AZURE_EMULATOR_TOKEN_SECONDS", "3600"))
        return {
            "accessToken": token(option(arguments, "--resource", "--scope"), expires),
            "expires_on": expires,
            "expiresOn": time.strftime("%Y-%m-%d %H:%M:%S.000000", time.localtime(expires)),
            "subscription": "SUBSCRIPTION_ID",
            "tenant": "TENANT_ID",
            "tokenType": "Bearer",
        }
    sys.exit(f"ERROR: this stand-in for az does not know: {' '.join(arguments[:2])}")


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
